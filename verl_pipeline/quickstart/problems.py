"""The quickstart's programming problems: small Python functions with tests, and their form as
verl's parquet rows.

Invariants of `problems.jsonl`, which the tests check: each reference passes its own tests, no
constant function and no function that returns an argument does; the splits `train` and `heldout`
share no name, no prompt and no behaviour; arguments and expected values are JSON values.

The problems are meant for a model of 135M parameters: 124 of the easy and medium prompts name the
expression to return ("Use `return ...`."), without which too few groups would hold a right answer
for GRPO to learn from. Before training, SmolLM2-135M at temperature 1 solved 29 % of 96 samples on
easy, 9 % of 32 on medium and none of 32 on hard problems.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow
import pyarrow.parquet

DATA_SOURCE = "verl_pipeline_quickstart"
# Whose form the tests have, by the name of its reader.
TESTS_SOURCE = "taco"

Split = Literal["train", "heldout"]
Difficulty = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class Case:
    """One test: the function called with `args` must return `expected`, both JSON values."""

    args: list[Any]
    expected: Any


@dataclass(frozen=True)
class Problem:
    """A function to write. `name` is unique, `prompt` the user's whole text, `reference` a right
    solution.
    """

    name: str
    split: Split
    difficulty: Difficulty
    prompt: str
    entry_point: str
    reference: str
    tests: tuple[Case, ...]

    def ground_truth(self) -> str:
        """Returns the tests as JSON, in the form of TACO's call-based problems."""
        # Each output in a list of its own, as in TACO: an output that is a list of one would be
        # taken for that list.
        outputs = [[case.expected] for case in self.tests]
        return json.dumps(
            {
                "fn_name": self.entry_point,
                "inputs": [case.args for case in self.tests],
                "outputs": outputs,
            }
        )


def load_problems() -> list[Problem]:
    """Returns all problems of both splits, in the order of the file."""
    text = resources.files(__package__).joinpath("problems.jsonl").read_text(encoding="utf-8")
    return [_problem(json.loads(line)) for line in text.splitlines()]


def write_parquet(directory: Path, problems: Sequence[Problem] | None = None) -> dict[Split, Path]:
    """Writes `train.parquet` and `heldout.parquet` into the directory, which is created if missing.

    Args:
        directory: where to write; existing files of these names are replaced.
        problems: what to write, by default all problems; each split must occur.

    Returns:
        The file of each split.

    Raises:
        ValueError: a split would be empty.
    """
    problems = load_problems() if problems is None else problems
    directory.mkdir(parents=True, exist_ok=True)
    paths: dict[Split, Path] = {}
    for split in get_args(Split):
        rows = [
            _row(index, problem)
            for index, problem in enumerate(p for p in problems if p.split == split)
        ]
        if not rows:
            raise ValueError(
                f"no problem of the split {split!r} among the {len(problems)} given; verl needs "
                "both files"
            )
        paths[split] = directory / f"{split}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[split])
    return paths


def _problem(fields: dict[str, Any]) -> Problem:
    tests = tuple(Case(**test) for test in fields["tests"])
    return Problem(**{**fields, "tests": tests})


def _row(index: int, problem: Problem) -> dict[str, Any]:
    return {
        "data_source": DATA_SOURCE,
        # The empty system message keeps SmolLM2's chat template from adding its own, 16 tokens a
        # sample.
        "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": problem.prompt}],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth()},
        "extra_info": {"index": index, "name": problem.name, "difficulty": problem.difficulty},
    }
