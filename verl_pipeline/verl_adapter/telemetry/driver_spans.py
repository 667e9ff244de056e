"""What a trainer's driver does, as spans; a part of :mod:`.trainers`.

Invariants:
* The trainer's own methods run as they are: these go before them and add nothing to their arguments
  or results.
* Spans of the driver lie inside one another or apart.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from verl_pipeline.telemetry.recorder import Recorder
from verl_pipeline.telemetry.records import Pool, Span
from verl_pipeline.telemetry.step_line import COMPUTING

DRIVER, VALIDATION = "driver", "validation"
# Spans that are about the batch that the step trains.
OF_BATCH = (*COMPUTING, "adv")


def _record_phase(method: str, span: str) -> Callable:
    """The trainer's method of this name, inside a span."""

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._span(span):
            return getattr(super(DriverSpans, self), method)(*args, **kwargs)

    recorded.__name__ = method
    return recorded


class DriverSpans:
    """Goes before a trainer class, whose methods it times. A subclass opens the recorder."""

    # Of verl's trainer.
    config: Any
    global_steps: int
    _rollout_server_managers: Callable[[], list]
    # Of ours.
    rollout_pool: Any

    _recorder = Recorder(None)
    # Whether prompts belong to the batch of a step from the beginning.
    _has_batches = False
    # Whether the first step has begun.
    _has_begun = False
    # Of the step so far.
    _step_spans: list[Span]
    _sample_began = 0.0

    def _find_replicas(self) -> dict[str, str]:
        """``host:port`` of each rollout replica, by lane."""
        addresses: list[str] = []
        for manager in self._rollout_server_managers():
            replicas = zip(manager.get_replicas(), manager.get_addresses(), strict=True)
            for replica, address in replicas:
                # A replica class may stand for several replicas (emulated ones).
                make_ports = getattr(replica, "make_ports", None)
                ports = make_ports(address) if make_ports else []
                addresses += [port.address for port in ports] or [address]
        return {f"replica {rank}": address for rank, address in enumerate(addresses)}

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        start = self._recorder.now()
        try:
            yield
        finally:
            self._add_span(name, start)

    def _add_span(self, name: str, start: float, lanes: Iterable[str] = (), **detail: Any) -> None:
        """A span of the driver, and the same one of these lanes of the rollout pool."""
        if not self._recorder.is_on:
            return
        step = self.global_steps if self._has_begun else None
        batch = step if self._has_batches and name in OF_BATCH else None
        span = Span(Pool.TRAINER, DRIVER, name, start, self._recorder.now(), step, batch, detail)
        self._recorder.add(span)
        self._step_spans.append(span)
        for lane in lanes:
            self._recorder.add(replace(span, pool=Pool.ROLLOUT, lane=lane))

    _compute_reward_colocate = _record_phase("_compute_reward_colocate", "reward")
    _compute_old_log_prob = _record_phase("_compute_old_log_prob", "old_log_prob")
    _compute_ref_log_prob = _record_phase("_compute_ref_log_prob", "ref")
    _compute_values = _record_phase("_compute_values", "values")
    _compute_advantage = _record_phase("_compute_advantage", "adv")
    _update_critic = _record_phase("_update_critic", "update_critic")
    _update_actor = _record_phase("_update_actor", "update_actor")
    _save_checkpoint = _record_phase("_save_checkpoint", "save_checkpoint")
    _validate = _record_phase("_validate", "testing")
    _next_train_batch = _record_phase("_next_train_batch", "wait_data")

    def on_sample_begin(self) -> None:
        super().on_sample_begin()  # type: ignore[misc]
        self._sample_began = self._recorder.now()

    def on_sample_end(self) -> None:
        self._add_span("wait_rollout", self._sample_began)
        with self._span("pause_rollout"):
            super().on_sample_end()  # type: ignore[misc]

    def on_step_end(self) -> None:
        if self._has_batches:  # weights leave elsewhere
            super().on_step_end()  # type: ignore[misc]
            return
        with self._record_weights(self.global_steps):
            super().on_step_end()  # type: ignore[misc]

    def drain_rollout(self) -> None:
        """Of ours."""
        with self._span("wait_rollout"):
            super().drain_rollout()  # type: ignore[misc]

    def load_first_weights(self, version: int) -> None:
        """Of ours; replicas that load by themselves tell their part."""
        start = self._recorder.now()
        super().load_first_weights(version)  # type: ignore[misc]
        self._add_span("update_weights", start, version=version)

    def send_weights(self, version: int) -> None:
        """Of ours."""
        if self.rollout_pool.version == version:
            return
        with self._record_weights(version):
            super().send_weights(version)  # type: ignore[misc]

    def _validate_beside(self, view: Any) -> dict[str, float]:
        """Of ours, in a thread of its own: no span of the driver."""
        start = self._recorder.now()
        try:
            return super()._validate_beside(view)  # type: ignore[misc]
        finally:
            end, step = self._recorder.now(), view.global_steps
            self._recorder.add(Span(Pool.TRAINER, VALIDATION, "testing", start, end, step))

    def publish_weights(self, version: int) -> None:
        """Of ours; the replicas load by themselves."""
        start = self._recorder.now()
        try:
            super().publish_weights(version)  # type: ignore[misc]
        finally:
            self._add_span("update_weights", start, version=version)

    @contextmanager
    def _record_weights(self, version: int) -> Iterator[None]:
        start = self._recorder.now()
        try:
            yield
        finally:
            self._add_span("update_weights", start, self._find_replicas(), version=version)
