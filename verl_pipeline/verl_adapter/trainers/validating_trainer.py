"""The part of the pipelined trainer that validates: before the next step, or beside the next ones.

Invariants:
* A validation of v_k is sampled with v_k alone.
* A validation beside the training ends before the last step that precedes the next validation does,
  and is logged with the step in which it ends: no step has the metrics of two.
* Beside the training, verl's own ``_validate`` runs on a copy of the trainer that stays at its step
  and shares the rest: it calls TransferQueue, the agent loops and the replay buffer, which any
  thread may call, and changes nothing of the trainer.
"""

import copy
from concurrent.futures import Future
from typing import Any

from transfer_queue import KVBatchMeta

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.deadlines import start_call
from verl_pipeline.trainer.validation import PREFIX, VERSION, is_validated
from verl_pipeline.verl_adapter.trainers.checkpointing_trainer import CheckpointingTrainer


class ValidatingTrainer(CheckpointingTrainer):
    """A subclass knows which step is the last.

    Attributes:
        last_step: of the run.
    """

    last_step: int
    _has_begun_step = False
    # The step whose validation begins in the next one.
    _due_validation: int | None = None
    _validation: "Future[dict[str, float]] | None" = None

    def _is_validated(self, step: int) -> bool:
        return is_validated(step, self.config.trainer.test_freq, self.last_step)

    def _is_beside(self) -> bool:
        """Whether the validation that verl wants now runs beside the next steps."""
        wanted = self.settings.val_beside_training and self._has_begun_step
        return wanted and not self._is_validated(self.global_steps + 1)

    def on_validate_begin(self) -> None:
        """verl calls this before :meth:`_validate`."""
        if not self._is_beside():
            with self.step_clock.inside("testing"), self._name_dead_process():
                schedule.prepare_validation(self, self.global_steps, self.settings.dial)

    def _validate(self) -> dict[str, float]:
        if self._is_beside():
            self._due_validation = self.global_steps
            return {}
        return super()._validate() | {VERSION: float(self.global_steps)}

    def begin_validation(self, version: int) -> None:
        """Of the schedule."""
        self._has_begun_step = True
        if self._due_validation != version:
            return
        self.rollout_pool.hold_version(version)
        view = copy.copy(self)
        view.global_steps = version
        self._validation = start_call(
            lambda: self._validate_beside(view), f"validation of v_{version}"
        )

    def _validate_beside(self, view: "ValidatingTrainer") -> dict[str, float]:
        try:
            metrics = super(ValidatingTrainer, view)._validate()
        finally:
            self.rollout_pool.release_version()
        return metrics | {VERSION: float(view.global_steps)}

    def _wait_for_validation(self) -> None:
        """Its own waits have deadlines."""
        if self._validation is not None:
            with self._name_dead_process():
                self._validation.result()

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        if self._is_validated(global_steps + 1):
            self._wait_for_validation()
        if self._validation is not None and self._validation.done():
            metrics.update(self._validation.result())
            self._validation = None
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)

    def _val_metrics_update(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        missing, first_error = self.replay_buffer.take_validation_failures()
        if missing:
            print(f"validation: {missing} trajectories failed; first: {first_error}", flush=True)
        metrics = super()._val_metrics_update(*args, **kwargs)
        return metrics | {f"{PREFIX}/missing": float(missing)}
