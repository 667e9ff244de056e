"""Two workloads whose amount of work is the same in every mode: response lengths are given, not left to the model.

Each row of the data says how long each of its responses is (``extra_info.lengths``, in tokens). An agent loop of ours,
loaded through verl's ``agent_loop_config_path`` in every mode, makes that the request's ``max_tokens`` and ignores the
end of sequence. So all modes sample and train the same number of tokens in the same shapes, whatever the weights say.

* ``even``: all responses of one length, a reward that costs nothing.
* ``long_tail``: the same number of responses, most short, one long; a reward that waits as a remote sandbox would:
  0.2 s, and 1 s for every 400 characters graded (seconds for the long ones). It waits and does not compute: graders
  have processors of their own where anyone trains, and here it would take a core from one of the pools.

Invariant: every finished generation and every reward is one span (:mod:`benchmarks.spans`) that names its row.
"""

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from benchmarks import spans
from verl_pipeline.quickstart.problems import load_problems

PROMPT_LENGTH = 112
REWARD_BASE_S, CHARACTERS_PER_S = 0.2, 400.0


@dataclass(frozen=True)
class Workload:
    """Response lengths in tokens: one tuple for each prompt of a batch, one number for each of its samples."""

    name: str
    lengths: tuple[tuple[int, ...], ...]
    reward_waits: bool

    @property
    def longest(self) -> int:
        return max(max(lengths) for lengths in self.lengths)

    @property
    def tokens(self) -> int:
        """Response tokens of a batch."""
        return sum(sum(lengths) for lengths in self.lengths)


WORKLOADS = (
    Workload("even", ((144,) * 4, (144,) * 4), reward_waits=False),
    Workload("long_tail", ((48, 64, 80, 240), (56, 72, 96, 160)), reward_waits=True),
)
# The same shapes, in seconds instead of minutes, on a model that costs nothing: for trying the benchmark itself.
TINY_WORKLOADS = (
    Workload("even", ((16,) * 4, (16,) * 4), reward_waits=False),
    Workload("long_tail", ((4, 6, 8, 40), (5, 7, 10, 16)), reward_waits=True),
)


def quickstart_prompts() -> list[str]:
    """Small Python functions to write."""
    return [problem.prompt for problem in load_problems() if problem.split == "train"]


def write_data(path: Path, workloads: tuple[Workload, ...], batches: int, prompts: list[str]) -> None:
    """Write ``batches`` batches of each workload, one workload after the other, in verl's schema."""
    rows: list[dict] = []
    for workload in workloads:
        for _batch in range(batches):
            for lengths in workload.lengths:
                index = len(rows)
                extra = {
                    "index": index,
                    "workload": workload.name,
                    "lengths": list(lengths),
                    "reward_waits": workload.reward_waits,
                }
                rows.append(
                    {
                        "data_source": "benchmark",
                        # The empty system message keeps SmolLM2's template from adding its own.
                        "prompt": [
                            {"role": "system", "content": ""},
                            {"role": "user", "content": prompts[index % len(prompts)]},
                        ],
                        "ability": "code",
                        "reward_model": {"style": "rule", "ground_truth": ""},
                        "extra_info": extra,
                    }
                )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_agent_loop_config(path: Path) -> None:
    """The file for ``rollout.agent.agent_loop_config_path``; the loop's name is ``fixed_length``."""
    path.write_text(json.dumps([{"name": "fixed_length", "_target_": f"{__name__}.FixedLengthAgentLoop"}]))


class FixedLengthAgentLoop(SingleTurnAgentLoop):
    """verl's single turn with the row's own response lengths."""

    # Samples of a row seen so far, in this process: verl's legacy agent loop does not number them.
    _samples: dict[int, count] = defaultdict(count)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any):
        row = kwargs["extra_info"]
        length = int(row["lengths"][next(self._samples[row["index"]]) % len(row["lengths"])])
        start, begin = time.time(), time.perf_counter()
        output = await super().run({**sampling_params, "max_tokens": length, "ignore_eos": True}, **kwargs)
        spans.write(
            "generate",
            start,
            time.perf_counter() - begin,
            row=int(row["index"]),
            workload=row["workload"],
            tokens=len(output.response_ids),
            asked=length,
            versions=[output.extra_fields.get("min_global_steps"), output.extra_fields.get("max_global_steps")],
        )
        return output


async def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs) -> float:
    """A reward without meaning (0 or 1 by the text's hash, so that groups differ) that costs what the workload says."""
    assert extra_info is not None
    start, begin = time.time(), time.perf_counter()
    if extra_info["reward_waits"]:
        await asyncio.sleep(REWARD_BASE_S + len(solution_str) / CHARACTERS_PER_S)
    digest = hashlib.sha256(solution_str.encode()).digest()
    spans.write("reward", start, time.perf_counter() - begin, row=int(extra_info["index"]))
    return float(digest[0] % 2)
