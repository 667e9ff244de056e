"""The dial while a run goes on: for the batches to come, and what each one was submitted with.

Invariants:
* A batch keeps the staleness that it was submitted with, whatever is chosen later: its trajectories
  were promised these versions, and its check is against the same.
* Lowering submits nothing until the lead has shrunk; no batch is taken back.
"""

from collections.abc import Collection, Mapping

from verl_pipeline.trainer.auto_staleness import AutoStaleness, Bounds, StepTimes, turn
from verl_pipeline.trainer.off_policy import EFFECTIVE
from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.trainer.schedule import STALENESS, Dial

# The name under which prompts carry their batch's staleness to the agent loops.
STALENESS_FIELD = "submitted_staleness"
_DIAL = "pipeline/staleness/dial"


class RunDial:
    """See the module.

    Attributes:
        current: for the batches to come.
        submitted: the newest batch that has been submitted, or was held by a checkpoint.
    """

    def __init__(self, settings: OneOffPipelineConfig):
        self.current = settings.dial
        self.submitted = 0
        self._most = Dial(self.current.mode, settings.most_staleness)
        self._leads: dict[int, int] = {}
        self._dials: dict[int, Dial] = {}
        self._auto = AutoStaleness(self.current.staleness) if settings.is_auto else None
        self._bounds = Bounds(
            STALENESS[self.current.mode][0],
            settings.most_staleness,
            settings.auto_staleness.wait_share,
            settings.min_effective_share,
        )

    def resume(self, trained: int, held: Collection[int]) -> None:
        """The run goes on after ``trained`` updates; ``auto`` with the lead that it finds.

        Args:
            held: batches that a checkpoint holds.
        """
        self.submitted = max([trained, *held])
        if self._auto is not None and held:
            self._choose(AutoStaleness(min(self.submitted - trained, self._bounds.most)))

    def submit(self, batch: int, step: int) -> Dial:
        """Batch ``batch`` is submitted before the training of ``step``; returns its dial."""
        self.submitted = batch
        self._leads[batch] = batch - step
        self._dials[batch] = self.current
        return self.current

    def take(self, batch: int) -> Dial:
        """The dial that a batch was submitted with; of an earlier run's, the loosest."""
        return self._dials.pop(batch, self._most)

    def end_step(
        self, batch: int, metrics: Mapping[str, float], timers: Mapping[str, float]
    ) -> tuple[dict[str, float], str | None]:
        """After the update on ``batch``: choose the staleness of the batches to come.

        Args:
            metrics: of the step.
            timers: verl's, in seconds: ``step``, ``gen`` (the wait for the batch) and, if there was
                one, ``save_checkpoint``.

        Returns:
            ``pipeline/staleness/dial``, and a sentence if it has changed; nothing but with
            ``staleness=auto``.
        """
        lead = self._leads.pop(batch, None)
        if self._auto is None:
            return {}, None
        sentence = None
        is_whole = not metrics.get("filters/skipped_update")  # else the step had no update
        latency_s = metrics.get("pipeline/batch/complete_s")
        wait_s = timers.get("gen", 0.0)
        work_s = timers["step"] - wait_s - timers.get("save_checkpoint", 0.0)
        if lead is not None and latency_s is not None and work_s > 0 and is_whole:
            times = StepTimes(lead, wait_s, work_s, latency_s, metrics.get(EFFECTIVE))
            before = self.current.staleness
            state, reason = turn(self._auto, times, self._bounds)
            self._choose(state)
            if reason is not None:
                sentence = (
                    f"step {batch}: staleness {before} becomes {state.staleness}, since {reason}"
                )
        return {_DIAL: float(self.current.staleness)}, sentence

    def _choose(self, state: AutoStaleness) -> None:
        self._auto = state
        self.current = Dial(self.current.mode, state.staleness)
