"""The schedule: who may sample, train and load weights, and when. Imports no verl, Ray or torch.

v_k are the weights after k updates; update k trains on batch k (k counts from 1); s is the
staleness.

    mode      | s      | a replica takes new weights      | a trajectory's versions
    ----------+--------+----------------------------------+----------------------------------------
    drained   | 0, 1   | when the whole pool runs nothing | one: v_{k-1} at 0, v_{max(k-2, 0)} at 1
    rolling   | 1 to 8 | when it runs nothing itself      | one, from v_{k-1-s} to v_{k-1}
    in_flight | 1 to 8 | at once, its requests frozen     | spans, the oldest from v_{k-1-s} on

Invariants:
* Batches are submitted in order, each once, none after the last step; update k trains on exactly
  batch k. No trajectory is discarded.
* No token that update k trains on is older than v_{k-1-s}.
* ``drained`` and ``rolling`` sample a trajectory with one version.
* Past the barrier the trainer publishes and goes on: it never waits for a replica, and a replica
  waits for the trainer only where the bound says so.
* Trajectories begin strictly in order: a replica whose weights are too old for the first that waits
  begins nothing, runs empty, and loads. So the oldest incomplete batch always goes on.
* A validation of v_k is sampled with v_k alone: while it runs beside the training, no replica takes
  newer weights.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

DRAINED, ROLLING, IN_FLIGHT = MODES = ("drained", "rolling", "in_flight")
# By mode, the smallest and the largest staleness that makes sense.
STALENESS = {DRAINED: (0, 1), ROLLING: (1, 8), IN_FLIGHT: (1, 8)}


@dataclass(frozen=True)
class Dial:
    """What the user chooses."""

    mode: str = DRAINED
    staleness: int = 1

    @property
    def has_barrier(self) -> bool:
        """Whether the whole pool drains before it takes weights."""
        return self.mode == DRAINED


class Pipeline(Protocol):
    """What the schedule drives."""

    def drain_rollout(self) -> None:
        """Return when all submitted batches, and a validation that has begun, are complete, so that
        the rollout pool is idle.
        """

    def send_weights(self, version: int) -> None:
        """Load v_version into the rollout pool; does nothing if the pool already holds it."""

    def publish_weights(self, version: int) -> None:
        """Let each replica load v_version when its turn comes; does not wait for that."""

    def begin_validation(self, version: int) -> None:
        """If a validation of v_version is to run beside the training, let it be sampled."""

    def submit_batch(self, batch: int) -> None:
        """Let a batch be sampled: with a barrier with what the pool holds, else when it may be."""

    def train_batch(self, batch: int) -> None:
        """Wait until a batch is complete, then train on it."""


def oldest_allowed_version(batch: int, staleness: int) -> int:
    """Oldest version that may sample ``batch``."""
    return max(batch - 1 - staleness, 0)


def fill_pipeline(
    pipeline: Pipeline, *, trained_version: int, held_batches: set[int], dial: Dial, last_step: int
) -> None:
    """Before the first step after ``trained_version``: submit the batches to run ahead by.

    Args:
        held_batches: batches that a checkpoint already holds; they are not sampled again.
    """
    if dial.has_barrier:
        pipeline.send_weights(trained_version)
    for batch in range(trained_version + 1, min(trained_version + dial.staleness, last_step) + 1):
        if batch not in held_batches:
            pipeline.submit_batch(batch)


def run_step(
    pipeline: Pipeline, k: int, *, dial: Dial, last_step: int, submitted: int | None = None
) -> None:
    """Step k: from v_{k-1} to v_k.

    Args:
        submitted: the newest batch that has been submitted; None: as if the dial had always been
            this one. After a larger staleness nothing is submitted until the lead has shrunk.
    """
    if dial.has_barrier:
        pipeline.drain_rollout()
        pipeline.send_weights(k - 1)
    pipeline.begin_validation(k - 1)
    newest = k - 1 + dial.staleness if submitted is None else submitted
    for batch in range(newest + 1, min(k + dial.staleness, last_step) + 1):
        pipeline.submit_batch(batch)
    pipeline.train_batch(k)
    if not dial.has_barrier:
        pipeline.publish_weights(k)


def prepare_validation(pipeline: Pipeline, k: int, dial: Dial) -> None:
    """After step k: v_k is validated before the next step begins. Past the barrier its
    trajectories begin before what waits.
    """
    if dial.has_barrier:
        pipeline.drain_rollout()
        pipeline.send_weights(k)


def prepare_checkpoint(pipeline: Pipeline, dial: Dial, drains: bool = True) -> None:
    """After step k: a checkpoint holds the complete batches that follow k without a gap. What is
    incomplete is sampled again by a resumed run; with a barrier and ``drains``, nothing is.
    """
    if dial.has_barrier and drains:
        pipeline.drain_rollout()


# ---- past the barrier: who begins and loads what --------------------------------------------


@dataclass(frozen=True)
class Window:
    """The versions that may sample a trajectory, both included."""

    oldest: int
    newest: int

    def admits(self, version: int) -> bool:
        """Whether weights of this version may."""
        return self.oldest <= version <= self.newest


def find_window(batch: int, staleness: int) -> Window:
    """What may begin trajectories of a batch; those of a validation of v_k need exactly v_k."""
    return Window(oldest_allowed_version(batch, staleness), batch - 1)


@dataclass
class Replica:
    """What the decision knows of a replica.

    Attributes:
        version: that it holds; None before it has loaded any.
        slots: trajectories that it may have open.
        open: trajectories that have begun on it and not ended.
        loading: the version that it is loading.
    """

    version: int | None
    slots: int
    open: int = 0
    loading: int | None = None

    def may_load(self, published: int, mode: str) -> bool:
        """Whether it takes the newest weights now."""
        is_old = self.version is None or self.version < published
        return is_old and self.loading is None and (mode == IN_FLIGHT or self.open == 0)

    def may_begin(self, window: Window) -> bool:
        """Whether it has room, and weights that the trajectory may have."""
        is_ready = self.loading is None and self.open < self.slots and self.version is not None
        return is_ready and window.admits(self.version)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Load:
    """The replica loads this version."""

    replica: str
    version: int


@dataclass(frozen=True)
class Begin:
    """The first trajectory that waits begins on this replica."""

    replica: str


def decide(
    replicas: Mapping[str, Replica], waiting: Iterable[Window], published: int, mode: str
) -> Iterator[Load | Begin]:
    """What happens now, one action after the other; the caller carries each out before the next.

    Args:
        replicas: by name; the caller's actions change them.
        waiting: of the trajectories that have not begun, the oldest batch first.
        published: the newest version that can be loaded.
        mode: ``rolling`` or ``in_flight``.
    """
    for name, replica in replicas.items():
        if replica.may_load(published, mode):
            yield Load(name, published)
    for window in waiting:
        able = [name for name, replica in replicas.items() if replica.may_begin(window)]
        if not able:
            return
        emptiest = min(able, key=lambda name: replicas[name].open)
        # Of several that load the same version, the first that has it would take the others' share,
        # too, and be slower for longer than they load.
        if any(
            replica.loading is not None
            and replica.loading == replicas[emptiest].version
            and replica.open < replicas[emptiest].open
            for replica in replicas.values()
        ):
            return
        yield Begin(emptiest)
