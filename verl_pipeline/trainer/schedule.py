"""The schedule: who may sample, train and send weights, and when. Imports no verl, Ray or torch.

v_k are the weights after k updates; update k trains on batch k (k counts from 1).

    staleness | batch k is sampled with | meaning
    ----------+-------------------------+-------------------------------------------------------
    0         | v_{k-1}                 | on-policy on split pools: matches verl's `sync` mode
    1         | v_{max(k-2, 0)}         | one-off pipelining: update k overlaps sampling of k+1

Invariants:
* Weights are sent, and validation or a checkpoint begins, only after the rollout pool has drained,
  so one version samples each trajectory.
* Batches are submitted in order, each once, none after the last step. No trajectory is discarded.
* At staleness s, batch k is never sampled with weights older than v_{k-1-s}.

A staleness above 1 is refused: sampling cannot start before the drain, so it would only make the
data older.
"""

from typing import Protocol


class Pipeline(Protocol):
    """What the schedule drives."""

    def drain_rollout(self) -> None:
        """Return when every submitted batch is complete, so that the rollout pool is idle."""

    def send_weights(self, version: int) -> None:
        """Load v_version into the rollout pool; does nothing if the pool already holds it."""

    def submit_batch(self, batch: int) -> None:
        """Start sampling a batch with the weights that the rollout pool holds."""

    def train_batch(self, batch: int) -> None:
        """Wait until a batch is complete, then train on it."""


def oldest_allowed_version(batch: int, staleness: int) -> int:
    """Oldest version that may sample ``batch``; in a run without validation, the one that does."""
    return max(batch - 1 - staleness, 0)


def fill_pipeline(
    pipeline: Pipeline,
    *,
    trained_version: int,
    held_batches: set[int],
    staleness: int,
    last_step: int,
) -> None:
    """Before the first step after ``trained_version``: submit the batches to run ahead by.

    Args:
        held_batches: batches that a checkpoint already holds; they are not sampled again.
    """
    pipeline.send_weights(trained_version)
    for batch in range(trained_version + 1, min(trained_version + staleness, last_step) + 1):
        if batch not in held_batches:
            pipeline.submit_batch(batch)


def run_step(pipeline: Pipeline, k: int, *, staleness: int, last_step: int) -> None:
    """Step k: from v_{k-1} to v_k."""
    pipeline.drain_rollout()
    pipeline.send_weights(k - 1)
    if k + staleness <= last_step:
        pipeline.submit_batch(k + staleness)
    pipeline.train_batch(k)


def prepare_validation(pipeline: Pipeline, k: int) -> None:
    """After step k: validation samples with v_k and shares the rollout pool with nothing else."""
    pipeline.drain_rollout()
    pipeline.send_weights(k)


def prepare_checkpoint(pipeline: Pipeline) -> None:
    """After step k: a checkpoint holds complete batches, so a resumed run samples none again."""
    pipeline.drain_rollout()
