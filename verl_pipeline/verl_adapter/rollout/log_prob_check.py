"""Whether the trainer and every replica give the same tokens the same log-probs, at equal versions.

In step k the trainer computes the log-probs of batch k with v_{k-1}, which every replica holds at
that time. So each replica is asked for the log-probs of some trajectories of batch k, in verl's own
form (``prompt_logprobs``, which verl's distillation uses): any engine that verl supports there can
be checked, whatever happens between the trainer's weights and the engine's.

Invariants:
* The questions go out before batch k+1 is submitted, so that they do not queue behind it, and are
  answered before step k ends: no weight sync finds them.
* A wait for an answer has a deadline and names the replica.
* Where nothing can be measured, the reason is printed once, and no figure is logged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    TRAINER_MODE,
    OneOffPipelineConfig,
)
from verl_pipeline.verl_adapter.rollout.probed_trajectories import (
    TrajectoryTokens,
    list_short_trajectories,
    read_old_log_probs,
    read_tokens,
)
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.weight_sync.comparison import WeightsDiffer
from verl_pipeline.weight_sync.log_prob_drift import (
    FIRST,
    LogProbDrift,
    choose_limits,
    scale_log_prob,
)

# Trajectories that are asked for: some may be filtered out before the trainer sees them.
TRAJECTORIES = 8
# Tokens of a prompt and the beginning of its response. The engine holds the logits of all of them
# at once, outside the memory it planned with: 0.6 GB in fp32 with a vocabulary of 150,000.
MAX_TOKENS = 1024
# vLLM's default of max_logprobs. Only a temperature below 1 needs more than the token itself.
TOP = 20
# A token whose log-prob at the temperature of the run is known less well is left out.
MAX_ERROR = 1e-3


@dataclass(frozen=True)
class _Question:
    """What every replica was asked in a step; ``answers`` are by replica, then by trajectory."""

    step: int
    trajectories: list[TrajectoryTokens]
    answers: dict[str, list[ray.ObjectRef]]


class LogProbCheck:
    """Measures in the first :data:`FIRST` steps of a run, and in every ``log_prob_every``-th.

    Args:
        config: verl's configuration, completed.
        settings: ours.
        pool: the replicas.
    """

    def __init__(self, config: DictConfig, settings: OneOffPipelineConfig, pool: RolloutPool):
        rollout = config.actor_rollout_ref.rollout
        check = settings.weight_check
        floor, limit = choose_limits(
            str(rollout.dtype), bool(rollout.quantization), check.max_log_prob_gap
        )
        self._drift = LogProbDrift(floor, limit)
        self._every = check.log_prob_every
        self._deadlines = settings.deadlines
        self._pool = pool
        self._temperature = float(rollout.temperature)
        self._max_tokens = min(MAX_TOKENS, rollout.prompt_length + rollout.response_length - 1)
        self._obstacle = find_obstacle(config)
        self._question: _Question | None = None
        # The last step of which the store was searched, and in how many a comparison was due.
        self._asked = -1
        self._tried = 0
        self._shown: set[str] = set()

    def ask(self, step: int, keys: list[str] | None = None) -> None:
        """Ask every replica about batch ``step``, if a measurement is due; does not wait.

        Args:
            keys: trajectories of the batch; None: find them in the store.
        """
        if self._asked == step or not self._is_due(step):
            return
        if not (servers := self._pool.name_servers(step - 1)):
            return
        if self._obstacle is not None:
            self._show(self._obstacle)
            return
        self._asked = step
        chosen = list_short_trajectories(step, keys, TRAJECTORIES, self._max_tokens - 1)
        trajectories = read_tokens(chosen, self._max_tokens) if chosen else []
        if not trajectories:
            return
        answers = {
            name: [self._send(server, entry, step) for entry in trajectories]
            for name, server in servers.items()
        }
        self._question = _Question(step, trajectories, answers)

    def compare(self, step: int, keys: list[str]) -> dict[str, float]:
        """Compare the answers with the trainer's log-probs of batch ``step``.

        Args:
            keys: trajectories of the batch that the trainer has computed log-probs of.

        Returns:
            ``pipeline/weights/log_prob_gap`` if it was measured.

        Raises:
            WeightsDiffer: a replica's log-probs differ by more than allowed.
            DeadlineExceeded: a replica did not answer.
            RolloutServerDead: a replica died meanwhile.
        """
        self.ask(step, keys)
        is_due = self._is_due(step)
        self._tried += is_due
        question, self._question = self._question, None
        if question is None or question.step != step:
            if is_due and self._obstacle is None:
                self._show(f"no trajectory of batch {step} is short enough and all text")
            return {}
        kept = set(keys)
        rows = [row for row, entry in enumerate(question.trajectories) if entry.key in kept]
        asked = {
            name: self._wait(name, [answers[row] for row in rows])
            for name, answers in question.answers.items()
        }
        outputs = {name: answers for name, answers in asked.items() if answers is not None}
        if not rows:
            self._show(f"the filters left none of the trajectories of batch {step} that were asked")
            return {}
        trajectories = [question.trajectories[row] for row in rows]
        trained = read_old_log_probs([entry.key for entry in trajectories])
        gaps = {
            name: compute_gap(trajectories, trained, answers, self._temperature)
            for name, answers in outputs.items()
        }
        measured = {name: gap for name, gap in gaps.items() if gap is not None}
        if len(measured) < len(gaps):
            self._show(f"{next(iter(gaps.keys() - measured.keys()))} gave no log-prob to compare")
        if not measured:
            return {}
        try:
            largest = self._drift.check_gaps(measured, step - 1)
        except WeightsDiffer as error:
            raise WeightsDiffer(
                f"{error}. If the weights do arrive, its arithmetic differs from the trainer's "
                "(dtype, quantisation, attention kernel): "
                f"{PIPELINE_KEY}.weight_check.max_log_prob_gap sets the limit, and "
                "log_prob_every=0 beside it switches the comparison off"
            ) from error
        return {"pipeline/weights/log_prob_gap": largest}

    def drop(self) -> None:
        """Wait for the answers of a step that trains on nothing, so that no weight sync finds them.

        Raises:
            DeadlineExceeded, RolloutServerDead: as :meth:`compare`.
        """
        question, self._question = self._question, None
        for name, answers in question.answers.items() if question else ():
            self._wait(name, answers)

    def _is_due(self, step: int) -> bool:
        return self._every > 0 and (self._tried < FIRST or step % self._every == 0)

    def _show(self, reason: str) -> None:
        if reason not in self._shown:
            self._shown.add(reason)
            print(f"[{TRAINER_MODE}] log-probs of the replicas not compared: {reason}", flush=True)

    def _send(self, server: Any, entry: TrajectoryTokens, step: int) -> ray.ObjectRef:
        return server.generate.remote(
            prompt_ids=entry.tokens,
            # The one token that has to be generated is thrown away.
            sampling_params={
                "max_tokens": 1,
                "temperature": 1.0,
                # On CPUs vLLM drops the seeds of all requests beside one that has none
                # (TopKTopPSampler.forward_cpu).
                "seed": 0,
                "prompt_logprobs": 0 if self._temperature == 1.0 else TOP,
            },
            request_id=f"weight-check-{step}-{entry.key}",
        )

    def _wait(self, name: str, answers: list[ray.ObjectRef]) -> list[Any] | None:
        """The answers; None if the replica is lost or cannot be reached."""
        seconds = self._deadlines.trajectory_s

        def get() -> list[Any] | None:
            while not self._pool.has_lost(name):
                try:
                    return ray.get(answers, timeout=self._deadlines.health_check_every_s)
                except ray.exceptions.GetTimeoutError:
                    continue
                except ray.exceptions.ActorUnavailableError:
                    # The answers are lost; so is the replica, or it is asked another time.
                    self._show(f"Ray could not reach {name}")
                    return None
                except ray.exceptions.RayError as error:
                    if not self._pool.has_lost(name, error):
                        raise
            return None

        return run_with_deadline(
            get,
            seconds,
            f"log-probs of {len(answers)} trajectories from {name}",
            f"look at its log, or set {PIPELINE_KEY}.weight_check.log_prob_every=0",
            watchdog=self._pool.check_health,
            watch_every_s=self._deadlines.health_check_every_s,
        )


def find_obstacle(config: DictConfig) -> str | None:
    """Why log-probs cannot be compared in this run; None if they can."""
    rollout = config.actor_rollout_ref.rollout
    if config.algorithm.rollout_correction.bypass_mode:
        return (
            "algorithm.rollout_correction.bypass_mode=True, so the trainer computes none before "
            "its update"
        )
    if rollout.name not in ("vllm", "sglang"):
        return f"{ROLLOUT}.name={rollout.name} gives none of a prompt"
    if rollout.temperature > 1 or rollout.temperature <= 0:
        return f"{ROLLOUT}.temperature={rollout.temperature}, and an engine gives those at 1"
    if rollout.disaggregation.enabled:
        return f"{ROLLOUT}.disaggregation.enabled=True: the engine that decodes computes no prompt"
    for name in ("kv_sharing_fast_prefill", "kv_transfer_config"):
        if OmegaConf.select(rollout, f"engine_kwargs.vllm.{name}"):
            return f"{ROLLOUT}.engine_kwargs.vllm.{name}: the engine may skip tokens of a prompt"
    mode = OmegaConf.select(rollout, "logprobs_mode") or ""
    if mode.endswith("logits"):
        return f"{ROLLOUT}.logprobs_mode={mode}, so the engine gives logits"
    return None


def compute_gap(
    trajectories: list[TrajectoryTokens],
    trained: list[np.ndarray],
    answers: list[Any],
    temperature: float,
) -> float | None:
    """Mean |difference| of the log-probs of all tokens that can be compared; None if there is none.

    Args:
        trained: the trainer's log-probs of each response, float, shape (response length,).
        answers: verl's TokenOutput for each trajectory.
    """
    differences: list[float] = []
    for entry, log_probs, answer in zip(trajectories, trained, answers, strict=True):
        ids = answer.extra_fields.get("prompt_ids")
        values = answer.extra_fields.get("prompt_logprobs")
        if not values:  # interrupted
            continue
        for position in range(entry.prompt_length, len(entry.tokens)):
            # An answer's entry i is about token i + 1.
            top = list(zip(ids[position - 1], values[position - 1], strict=True))
            found = read_log_prob(top, entry.tokens[position], temperature)
            if found is not None:
                differences.append(abs(found - float(log_probs[position - entry.prompt_length])))
    return float(np.mean(differences)) if differences else None


def read_log_prob(top: list[tuple[int, float]], token: int, temperature: float) -> float | None:
    """Log-prob of ``token`` at ``temperature`` (at most 1); None if it is not known well enough."""
    top = [(int(other), value) for other, value in top if other is not None]
    if temperature == 1.0:
        return next((value for other, value in top if other == token), None)
    scaled = scale_log_prob(top, token, temperature)
    return scaled[0] if scaled is not None and scaled[1] <= MAX_ERROR else None
