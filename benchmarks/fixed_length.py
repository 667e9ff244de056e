"""An agent loop with fixed response lengths, and a reward of fixed duration, for verl.

A row's ``extra_info`` sets the tokens of each of its responses (``lengths``, one per sample) and
the duration of its reward: ``reward_s`` seconds plus ``reward_s_per_token`` for each requested
token; with ``reward_s`` None there is no reward.

Invariants:
* A trajectory has exactly the tokens that its row requests, whatever the model samples.
* A reward waits instead of computing: in real trainings graders have processors of their own, while
  here they would take a core from one of the pools.
* Each generation and each reward is one span with its row, in runs that record spans.
"""

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from benchmarks import spans

AGENT_LOOP_NAME = "fixed_length"


def make_overrides(directory: Path) -> list[str]:
    """Return verl's overrides for the agent loop and the reward, in any trainer mode.

    They name a file that is written into ``directory``.
    """
    path = directory / "agent_loops.yaml"
    target = f"{__name__}.FixedLengthAgentLoop"
    path.write_text(json.dumps([{"name": AGENT_LOOP_NAME, "_target_": target}]))
    agent = "actor_rollout_ref.rollout.agent"
    return [
        f"{agent}.agent_loop_config_path={path}",
        f"{agent}.default_agent_loop={AGENT_LOOP_NAME}",
        f"reward.custom_reward_function.path=pkg://{__name__}",
        "reward.custom_reward_function.name=compute_score",
    ]


class FixedLengthAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn loop with the row's response lengths; the score is 0 without a reward."""

    # Next sample number by row, in this process: verl's legacy agent loop does not number samples.
    _sample_numbers: dict[int, count] = defaultdict(count)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any):
        row = kwargs["extra_info"]
        session = (
            kwargs["session_id"]
            if "session_id" in kwargs
            else next(self._sample_numbers[row["index"]])
        )
        length = int(row["lengths"][session])
        start, begin = time.time(), time.perf_counter()
        output = await super().run(
            {**sampling_params, "max_tokens": length, "ignore_eos": True}, **kwargs
        )
        versions = [output.extra_fields.get(f"{end}_global_steps") for end in ("min", "max")]
        spans.write_span(
            "generate",
            start,
            time.perf_counter() - begin,
            row=int(row["index"]),
            tokens=len(output.response_ids),
            requested_tokens=length,
            versions=versions,
        )
        if row["reward_s"] is None:
            output.reward_score = 0.0
        # verl merges these fields into the extra_info that the reward receives.
        output.extra_fields["requested_tokens"] = length
        return output


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **_kwargs
) -> float:
    """Wait for the row's duration; return 0 or 1 by the text's hash, so that groups vary."""
    assert extra_info is not None
    start, begin = time.time(), time.perf_counter()
    await asyncio.sleep(
        extra_info["reward_s"] + extra_info["reward_s_per_token"] * extra_info["requested_tokens"]
    )
    digest = hashlib.sha256(solution_str.encode()).digest()
    spans.write_span("reward", start, time.perf_counter() - begin, row=int(extra_info["index"]))
    return float(digest[0] % 2)
