"""What benchmarks plug into verl: responses of given lengths, and rewards of known duration.

A row says in ``extra_info`` how many tokens each of its responses has (``lengths``, one a sample),
and what its reward costs: ``reward_s`` seconds and ``reward_s_per_token`` more for each token asked
for; ``reward_s`` None is no reward.

Invariants:
* A trajectory has exactly the tokens its row asks for, whatever the model samples.
* A reward waits and does not compute: graders have processors of their own where anyone trains, and
  here they would take a core from one of the pools.
* Each finished generation and each reward is one span that names its row, in a run that asks for
  spans.
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

NAME = "fixed_length"


def overrides(directory: Path) -> list[str]:
    """verl's overrides for this loop and its reward, in any trainer mode; writes a file into
    ``directory``.
    """
    path = directory / "agent_loops.yaml"
    path.write_text(json.dumps([{"name": NAME, "_target_": f"{__name__}.FixedLengthAgentLoop"}]))
    agent = "actor_rollout_ref.rollout.agent"
    return [
        f"{agent}.agent_loop_config_path={path}",
        f"{agent}.default_agent_loop={NAME}",
        f"reward.custom_reward_function.path=pkg://{__name__}",
        "reward.custom_reward_function.name=compute_score",
    ]


class FixedLengthAgentLoop(SingleTurnAgentLoop):
    """verl's single turn with the row's own response lengths; without a reward, it scores itself 0."""

    # Samples of a row seen so far, in this process: verl's legacy agent loop does not number them.
    _samples: dict[int, count] = defaultdict(count)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any):
        row = kwargs["extra_info"]
        session = (
            kwargs["session_id"] if "session_id" in kwargs else next(self._samples[row["index"]])
        )
        length = int(row["lengths"][session])
        start, begin = time.time(), time.perf_counter()
        output = await super().run(
            {**sampling_params, "max_tokens": length, "ignore_eos": True}, **kwargs
        )
        versions = [output.extra_fields.get(f"{end}_global_steps") for end in ("min", "max")]
        spans.write(
            "generate",
            start,
            time.perf_counter() - begin,
            row=int(row["index"]),
            tokens=len(output.response_ids),
            asked=length,
            versions=versions,
        )
        if row["reward_s"] is None:
            output.reward_score = 0.0
        # verl gives these to the reward, merged into its row's extra_info.
        output.extra_fields["asked"] = length
        return output


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **_kwargs
) -> float:
    """A reward without meaning (0 or 1 by the text's hash, so that groups differ) that costs what
    the row says.
    """
    assert extra_info is not None
    start, begin = time.time(), time.perf_counter()
    await asyncio.sleep(
        extra_info["reward_s"] + extra_info["reward_s_per_token"] * extra_info["asked"]
    )
    digest = hashlib.sha256(solution_str.encode()).digest()
    spans.write("reward", start, time.perf_counter() - begin, row=int(extra_info["index"]))
    return float(digest[0] % 2)
