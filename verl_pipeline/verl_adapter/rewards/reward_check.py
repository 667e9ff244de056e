"""verl's agent loop worker that never hands on a reward that is not a finite number.

It sits at verl's seam ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``, behind every
source of rewards: reward functions and reward managers, reward models, agent loops themselves.

Invariants:
* A reward that cannot be had (an exception, a dead reward worker) or used (NaN, None, text, ...) is
  a failure of that trajectory's grader: its reward is NaN and its verdict ``infrastructure``, with
  the cause as ``reason``. The trajectory stays in its group; :mod:`verl_pipeline.filters` drops it.
* Every other trajectory's reward is a ``float``.
* A trajectory carries the end of its generation (``extra_fields["generated_at"]``, seconds since
  the epoch).
* The tag of a stored trajectory tells its outcome (:mod:`.trajectories.outcome_tags`) before its
  prompt becomes terminal.
"""

import logging
import time
import traceback
from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.trainer.reward_value import UnusableReward, read_reward
from verl_pipeline.verl_adapter.telemetry.agent_loops import record_worker
from verl_pipeline.verl_adapter.trajectories.outcome_tags import describe_outcome
from verl_pipeline.verl_adapter.trajectories.trajectory_store import TRAIN, VALIDATION, put_outcomes

logger = logging.getLogger(__name__)

# verl's class is a Ray actor class already; this is the plain class inside it.
_AgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
# verl's reward manager `rate_limited` reports these with a reward of 0 and no `score`.
_HIDDEN_FAILURES = ("error", "timeout")


class RewardCheckingWorker(_AgentLoopWorker):  # type: ignore[valid-type,misc]
    """One process that runs agent loops and checks their rewards."""

    async def request_reward(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        """Ask verl's reward workers; the answer is in the last of ``outputs``."""
        try:
            await super()._compute_score(outputs, kwargs)
        except KeyError as error:
            # verl sets the reward first; its reward models report nothing beside it.
            if error.args != ("reward_extra_info",) or outputs[-1].reward_score is None:
                raise

    async def _agent_loop_postprocess(self, output, validate, **kwargs) -> None:
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        outputs = output if isinstance(output, list) else [output]
        session = f"{kwargs['uid']}_{kwargs['session_id']}"
        outcomes = [
            describe_outcome(
                reward=one.reward_score,
                response=one.response_ids,
                mask=one.response_mask,
                num_turns=one.num_turns,
                extra_fields=one.extra_fields,
            )
            for one in outputs
        ]
        keys = [f"{session}_{index}" for index in range(len(outputs))]
        completed = {"completed_at": time.time()}
        outcomes = [outcome | completed for outcome in outcomes]
        if keys:
            await put_outcomes(keys, VALIDATION if validate else TRAIN, outcomes)

    async def _compute_score(self, outputs, kwargs) -> None:
        final = outputs[-1]
        final.extra_fields["generated_at"] = time.time()
        try:
            await self.request_reward(outputs, kwargs)
            if final.reward_score is None and self.reward_loop_worker_handles is None:
                return  # a colocated reward model gives it later
            final.reward_score = read_reward(final.reward_score)
            if not isinstance(final.extra_fields.get("reward_extra_info"), dict):
                final.extra_fields["reward_extra_info"] = {}
            _refuse_hidden_failure(final.extra_fields["reward_extra_info"])
        except Exception as error:
            key = f"{kwargs['uid']}_{kwargs['session_id']}"
            reason = "".join(traceback.format_exception(error))
            if isinstance(error, UnusableReward):
                reason = str(error)
            logger.error("reward of %s: %s", key, reason)
            mark_ungraded(final, reason)


def mark_ungraded(output: Any, reason: str) -> None:
    """Give verl's ``AgentLoopOutput`` the verdict ``infrastructure`` and no reward."""
    report = output.extra_fields.get("reward_extra_info")
    kept = dict(report) if isinstance(report, dict) else {}
    # Both repeat the reward that is none.
    kept.pop("score", None)
    kept.pop("acc", None)
    output.reward_score = float("nan")
    output.extra_fields["reward_extra_info"] = kept | {"verdict": INFRASTRUCTURE, "reason": reason}


def _refuse_hidden_failure(report: dict[str, Any]) -> None:
    for name in _HIDDEN_FAILURES:
        if set(report) == {name, "acc"} and report["acc"] == 0.0:
            raise UnusableReward(f"the reward manager reports {name}: {report[name]}")


class RewardCheckingManager(AgentLoopManagerTQ):
    """verl's agent loop manager with workers that check rewards; a subclass may name another
    ``worker_class``.
    """

    worker_class: type[RewardCheckingWorker] = RewardCheckingWorker

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(record_worker(self.worker_class))
