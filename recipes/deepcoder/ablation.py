"""``python -m recipes.deepcoder.ablation --data FOLDER``: the overlong filter on and off, all else equal.

Same data, same prompts in the same order, same stages; without the filter the training keeps what was cut off, with the
reward it got. With the demo's ``--output`` the arm with the filter is the demo's own run, which is not run again.
"""

from pathlib import Path
from typing import Annotated

import typer

from recipes.deepcoder.demo import Sizes, command

ARMS = {
    "overlong": [],
    "unfiltered": ["trainer.v1.one_off_pipeline.filters=[infrastructure]"],
}


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Further settings of prepare.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of local data files.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of everything.")] = Path("outputs/deepcoder-demo"),
    samples: Annotated[int, typer.Option(min=2, help="Responses to each held-out problem.")] = 8,
) -> None:
    """Train with and without the overlong filter, and compare problem by problem."""
    command(ARMS, output, data, Sizes(samples), settings or [])


if __name__ == "__main__":
    typer.run(main)
