"""The quickstart's programming problems (small Python functions with tests) as verl's rows.

Invariants of `problems.jsonl`, checked by the tests:
* Each reference passes its own tests; no constant function and no function that returns an argument
  does.
* The splits `train` and `heldout` share no name, no prompt and no behaviour.
* Arguments and expected values are JSON values.

The problems suit a model of 135M parameters: 124 of the easy and medium prompts name the expression
to return ("Use `return ...`."). Without it, too few groups would contain a correct answer for GRPO
to learn from. Before training, SmolLM2-135M at temperature 1 solved 29 % of 96 samples of easy
problems, 9 % of 32 of medium and none of 32 of hard problems.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow
import pyarrow.parquet

from verl_pipeline.outputs.files import replace_file

DATA_SOURCE = "verl_pipeline_quickstart"
# Name of the reader that parses the tests.
TESTS_SOURCE = "taco"

Split = Literal["train", "heldout"]
Difficulty = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class QuickstartTest:
    """One test: called with `args`, the function must return `expected`; both are JSON values."""

    args: list[Any]
    expected: Any


@dataclass(frozen=True)
class QuickstartProblem:
    """A function to write.

    Attributes:
        name: unique name.
        prompt: the whole user message.
        entry_point: name of the function.
        reference: a correct solution.
    """

    name: str
    split: Split
    difficulty: Difficulty
    prompt: str
    entry_point: str
    reference: str
    tests: tuple[QuickstartTest, ...]

    def make_ground_truth(self) -> str:
        """Return the tests as JSON, in the form of TACO's call-based problems."""
        # As in TACO, each output is wrapped in a list; otherwise the reader would unwrap an output
        # that is itself a list of one element.
        outputs = [[case.expected] for case in self.tests]
        return json.dumps(
            {
                "fn_name": self.entry_point,
                "inputs": [case.args for case in self.tests],
                "outputs": outputs,
            }
        )


def load_problems() -> list[QuickstartProblem]:
    """Return the problems of both splits, in the order of the file."""
    text = resources.files(__package__).joinpath("problems.jsonl").read_text(encoding="utf-8")
    return [_parse_problem(json.loads(line)) for line in text.split("\n") if line]


def write_parquet(
    directory: Path, problems: Sequence[QuickstartProblem] | None = None
) -> dict[Split, Path]:
    """Write `train.parquet` and `heldout.parquet`; return the file of each split.

    Args:
        directory: target, created if missing; existing files are replaced.
        problems: problems to write, by default all; both splits must occur.

    Raises:
        ValueError: a split has no problem.
    """
    problems = load_problems() if problems is None else problems
    paths: dict[Split, Path] = {}
    for split in get_args(Split):
        rows = [
            _make_row(index, problem)
            for index, problem in enumerate(p for p in problems if p.split == split)
        ]
        if not rows:
            raise ValueError(
                f"the split {split!r} has no problem among {len(problems)}; verl needs both files"
            )
        paths[split] = directory / f"{split}.parquet"
        with replace_file(paths[split]) as file:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return paths


def _parse_problem(fields: dict[str, Any]) -> QuickstartProblem:
    tests = tuple(QuickstartTest(**test) for test in fields["tests"])
    return QuickstartProblem(**{**fields, "tests": tests})


def _make_row(index: int, problem: QuickstartProblem) -> dict[str, Any]:
    return {
        "data_source": DATA_SOURCE,
        # Without the empty system message, SmolLM2's chat template adds its own: 16 tokens per
        # sample.
        "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": problem.prompt}],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": problem.make_ground_truth()},
        "extra_info": {"index": index, "name": problem.name, "difficulty": problem.difficulty},
    }
