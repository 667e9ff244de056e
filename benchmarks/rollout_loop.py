"""What ``benchmarks.rollout`` plugs into verl: an agent loop with lengths from the data, a reward of known duration.

Invariant: a trajectory has exactly the tokens its row asks for, whatever the model samples.
"""

import asyncio
from typing import Any

from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class RowLengthAgentLoop(SingleTurnAgentLoop):
    """verl's single turn, with ``extra_info["lengths"][session]`` tokens as the response.

    Without ``extra_info["reward_s"]`` it scores its trajectories itself, and verl's reward loop is not asked.
    """

    async def run(self, sampling_params: dict[str, Any], **kwargs) -> AgentLoopOutput:
        info = kwargs["extra_info"]
        length = int(info["lengths"][kwargs["session_id"]])
        output = await super().run({**sampling_params, "max_tokens": length, "ignore_eos": True}, **kwargs)
        if info["reward_s"] is None:
            output.reward_score = 0.0
        return output


async def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs) -> float:
    """Waits ``extra_info["reward_s"]`` seconds, as for a grader elsewhere, and is worth nothing."""
    await asyncio.sleep(float(extra_info["reward_s"]))
    return 0.0
