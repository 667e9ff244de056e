"""The schedules that are compared, and the rule of what a replica may begin.

v_k are the weights after k updates; update k trains on batch k; s is the staleness.

    sync          all GPUs sample batch k with v_{k-1}, then all train on it
    one_step_off  two pools; batch k+1 is sampled while update k runs; weights after the drain
    drained       two pools; s = 1 as one_step_off; s = 0 on-policy
    rolling       two pools; a replica loads the newest weights whenever it runs nothing
    in_flight     two pools; a replica loads them at once, with its requests frozen meanwhile

Invariant: every token that update k trains on has a version from k-1-s to k-1.
"""

from dataclasses import dataclass

# Ours, the simplest first.
DRAINED, ROLLING, IN_FLIGHT = OURS = ("drained", "rolling", "in_flight")
WITH_BARRIER = ("sync", "one_step_off", DRAINED)
LARGEST_STALENESS = 8


def may_begin(batch: int, version: int, staleness: int) -> bool:
    """Whether a replica that holds ``version`` may begin trajectories of ``batch`` (from 1)."""
    return batch - 1 - staleness <= version < batch


@dataclass(frozen=True)
class Schedule:
    """A schedule at a staleness."""

    kind: str
    staleness: int = 0

    @property
    def has_barrier(self) -> bool:
        """Whether the pool drains before it takes new weights."""
        return self.kind in WITH_BARRIER

    def __str__(self) -> str:
        return (
            self.kind
            if self.kind in ("sync", "one_step_off")
            else f"{self.kind} s={self.staleness}"
        )


SYNC = Schedule("sync")
BARRIER_SCHEDULES = (Schedule("one_step_off", 1), Schedule("drained", 0), Schedule("drained", 1))


def list_schedules() -> list[Schedule]:
    """All schedules that are compared with `sync`."""
    return [
        *BARRIER_SCHEDULES,
        *(
            Schedule(kind, staleness)
            for kind in (ROLLING, IN_FLIGHT)
            for staleness in range(1, LARGEST_STALENESS + 1)
        ),
    ]


@dataclass(frozen=True)
class Layout:
    """Who has which GPUs.

    Attributes:
        rollout_gpus, trainer_gpus: of the two pools; for `sync` both are all GPUs.
        slots: trajectories that a replica decodes at a time.
        longest_first: whether a batch is handed out by falling length, as a perfect predictor
            would; else in the loader's order.
    """

    rollout_gpus: int
    trainer_gpus: int
    slots: int
    longest_first: bool = False

    def __str__(self) -> str:
        first = ", longest first" if self.longest_first else ""
        return f"{self.rollout_gpus}:{self.trainer_gpus}, {self.slots} slots{first}"
