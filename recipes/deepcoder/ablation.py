"""``python -m recipes.deepcoder.ablation --data FOLDER``: the overlong filter on and off, all else
equal.

Same data, same prompts in the same order, same stages; without the filter the training keeps what
was cut off, with the reward it got. With the demo's ``--output`` the arm with the filter is the
demo's own run, which is not run again.
"""

import typer

from recipes.deepcoder.demo import (
    OUTPUT,
    DataOption,
    OutputOption,
    SamplesOption,
    SettingsArgument,
    Sizes,
    command,
)

ARMS = {
    "overlong": [],
    "unfiltered": ["trainer.v1.one_off_pipeline.filters=[infrastructure]"],
}


def main(
    settings: SettingsArgument = None,
    data: DataOption = None,
    output: OutputOption = OUTPUT,
    samples: SamplesOption = Sizes.samples,
) -> None:
    """Train with and without the overlong filter, and compare problem by problem."""
    command(ARMS, output, data, Sizes(samples), settings or [])


if __name__ == "__main__":
    typer.run(main)
