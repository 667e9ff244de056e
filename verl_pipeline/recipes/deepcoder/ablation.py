"""Compares the demonstration with and without the overlong filter, all else equal.

    python -m verl_pipeline.recipes.deepcoder.ablation --data FOLDER

Both arms train on the same data, the same prompts in the same order and the same stages. Without
the filter, truncated trajectories stay in the batch with the reward that they got. With the
demonstration's ``--output``, its run is the arm with the filter and does not run again.
"""

import typer

from verl_pipeline.recipes.deepcoder.demo import (
    DEFAULT_OUTPUT,
    DataOption,
    EvaluationSize,
    OutputOption,
    SamplesOption,
    SettingsArgument,
    run_script,
)
from verl_pipeline.standard_streams import guard_streams

ARMS = {
    "overlong": [],
    "unfiltered": ["trainer.v1.one_off_pipeline.filters=[infrastructure]"],
}


def main(
    settings: SettingsArgument = None,
    data: DataOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    samples: SamplesOption = EvaluationSize.samples,
) -> None:
    """Train with and without the overlong filter, and compare problem by problem."""
    run_script(ARMS, output, data, EvaluationSize(samples), settings or [])


if __name__ == "__main__":
    with guard_streams():
        typer.run(main)
