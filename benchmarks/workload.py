"""Two workloads whose amount of work is the same in every mode: response lengths are given, not
left to the model.

* ``even``: all responses of one length, a reward that costs nothing.
* ``long_tail``: the same number of responses, most short, one long; a reward that waits as a remote
  sandbox would: 0.2 s, and 1 s more for every 100 tokens (about 400 characters of program), so
  seconds for the long ones.

How lengths and rewards get into verl: :mod:`benchmarks.fixed_length`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from verl_pipeline.quickstart.problems import load_problems

PROMPT_LENGTH = 112


@dataclass(frozen=True)
class Workload:
    """Response lengths in tokens: one tuple for each prompt of a batch, one number for each of its
    samples.

    ``reward_s`` and ``reward_s_per_token``: seconds that a reward waits.
    """

    name: str
    lengths: tuple[tuple[int, ...], ...]
    reward_s: float = 0.0
    reward_s_per_token: float = 0.0

    @property
    def longest(self) -> int:
        return max(max(lengths) for lengths in self.lengths)

    @property
    def tokens(self) -> int:
        """Response tokens of a batch."""
        return sum(sum(lengths) for lengths in self.lengths)

    @property
    def trajectories(self) -> int:
        return sum(len(lengths) for lengths in self.lengths)

    def describe(self) -> dict:
        """For a report, as JSON has it."""
        return {
            **asdict(self),
            "lengths": [list(lengths) for lengths in self.lengths],
            "tokens": self.tokens,
        }


WORKLOADS = (
    Workload("even", ((144,) * 4, (144,) * 4)),
    Workload(
        "long_tail", ((48, 64, 80, 240), (56, 72, 96, 160)), reward_s=0.2, reward_s_per_token=0.01
    ),
)
# The same shapes, in seconds instead of minutes, on a model that costs nothing: for trying the
# benchmark itself.
TINY_WORKLOADS = (
    Workload("even", ((16,) * 4, (16,) * 4)),
    Workload("long_tail", ((4, 6, 8, 40), (5, 7, 10, 16)), reward_s=0.2, reward_s_per_token=0.01),
)


def quickstart_prompts() -> list[str]:
    """Small Python functions to write."""
    return [problem.prompt for problem in load_problems() if problem.split == "train"]


def write_data(path: Path, workloads: list[Workload], prompts: list[str]) -> None:
    """Write one batch for each of ``workloads``, in verl's schema."""
    rows: list[dict] = []
    for workload in workloads:
        for lengths in workload.lengths:
            index = len(rows)
            extra = {
                "index": index,
                "lengths": list(lengths),
                "reward_s": workload.reward_s,
                "reward_s_per_token": workload.reward_s_per_token,
            }
            # The empty system message keeps SmolLM2's template from adding its own.
            messages = [
                {"role": "system", "content": ""},
                {"role": "user", "content": prompts[index % len(prompts)]},
            ]
            rows.append(
                {
                    "data_source": "benchmark",
                    "prompt": messages,
                    "ability": "code",
                    "reward_model": {"style": "rule", "ground_truth": ""},
                    "extra_info": extra,
                }
            )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
