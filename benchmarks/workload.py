"""Workloads with fixed response lengths, so that every mode does the same work.

* ``even``: all responses have one length; the reward takes no time.
* ``long_tail``: the same number of responses, most of them short, one long; the reward waits as a
  remote sandbox would: 0.2 s plus 1 s per 100 tokens (about 400 characters of program).
* ``heavy_tail``: one response has most of a batch's tokens, so that sampling it takes longer than
  the update. It is measured only if asked for.

:mod:`benchmarks.fixed_length` brings lengths and rewards into verl.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from verl_pipeline.quickstart.problems import load_problems

PROMPT_LENGTH = 112


@dataclass(frozen=True)
class Workload:
    """The work of a batch.

    Attributes:
        lengths: response lengths in tokens: one tuple per prompt, one number per sample.
        reward_s: seconds that a reward waits.
        reward_s_per_token: seconds that it waits in addition per response token.
    """

    name: str
    lengths: tuple[tuple[int, ...], ...]
    reward_s: float = 0.0
    reward_s_per_token: float = 0.0

    @property
    def max_length(self) -> int:
        """Tokens of the longest response."""
        return max(max(lengths) for lengths in self.lengths)

    @property
    def token_count(self) -> int:
        """Response tokens of a batch."""
        return sum(sum(lengths) for lengths in self.lengths)

    @property
    def trajectory_count(self) -> int:
        """Trajectories of a batch."""
        return sum(len(lengths) for lengths in self.lengths)

    def as_dict(self) -> dict:
        """Return the form that reports have."""
        return {
            **asdict(self),
            "lengths": [list(lengths) for lengths in self.lengths],
            "tokens": self.token_count,
        }


WORKLOADS = (
    Workload("even", ((144,) * 4, (144,) * 4)),
    Workload(
        "long_tail", ((48, 64, 80, 240), (56, 72, 96, 160)), reward_s=0.2, reward_s_per_token=0.01
    ),
)
HEAVY_TAIL = Workload(
    "heavy_tail", ((16, 24, 32, 400), (16, 24, 32, 40)), reward_s=0.2, reward_s_per_token=0.01
)
# The same shapes with short responses, to try the benchmark in seconds on a tiny model.
TINY_WORKLOADS = (
    Workload("even", ((16,) * 4, (16,) * 4)),
    Workload("long_tail", ((4, 6, 8, 40), (5, 7, 10, 16)), reward_s=0.2, reward_s_per_token=0.01),
)
TINY_HEAVY_TAIL = Workload(
    "heavy_tail", ((3, 4, 5, 60), (3, 4, 5, 6)), reward_s=0.2, reward_s_per_token=0.01
)


def load_quickstart_prompts() -> list[str]:
    """Return the quickstart's training prompts."""
    return [problem.prompt for problem in load_problems() if problem.split == "train"]


def write_data(path: Path, workloads: list[Workload], prompts: list[str]) -> None:
    """Write one batch per workload as a parquet file in verl's schema."""
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
            # Without the empty system message, SmolLM2's chat template adds its own.
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
