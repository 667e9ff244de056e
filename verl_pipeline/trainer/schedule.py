"""The schedule: who may sample, train and send weights, and when. Pure; imports nothing of verl,
Ray or torch.

v_k are the weights after k updates; batch k is what update k trains on (k counts from 1).

    staleness | batch k is sampled with | meaning
    ----------+-------------------------+---------------------------------------------------------------
    0         | v_{k-1}                 | on-policy on split pools: verl's `sync`, update by update
    1         | v_{max(k-2, 0)}         | one-off pipelining: batch k+1 is sampled while update k runs

Invariants:
* Weights are sent, and validation or a checkpoint begins, only when the rollout pool has drained: a
  trajectory is sampled by one version.
* Batches are submitted in order, each once, none past the last step; nothing generated is thrown
  away.
* At staleness s, batch k is never sampled with anything older than v_{k-1-s}.

With a drained pool a staleness above 1 buys nothing (sampling cannot start earlier than the drain),
so it is refused.
"""

from typing import Protocol


class Pipeline(Protocol):
    """What the schedule drives."""

    def drain(self) -> None:
        """Return when every submitted batch is complete, so that nothing is being generated."""

    def send_weights(self, version: int) -> None:
        """Make the rollout pool hold v_version; free if it does already."""

    def submit(self, batch: int) -> None:
        """Start sampling a batch with the weights the rollout pool holds."""

    def train(self, batch: int) -> None:
        """Train on a batch, once it is complete."""


def sampling_version(batch: int, staleness: int) -> int:
    """The version that batch is sampled with, counted from a start at v_0."""
    return max(batch - 1 - staleness, 0)


def fill(pipeline: Pipeline, *, trained: int, held: set[int], staleness: int, last: int) -> None:
    """Before the first step after v_trained: submit what the pipeline runs ahead by, except what a
    checkpoint held.
    """
    pipeline.send_weights(trained)
    for batch in range(trained + 1, min(trained + staleness, last) + 1):
        if batch not in held:
            pipeline.submit(batch)


def step(pipeline: Pipeline, k: int, *, staleness: int, last: int) -> None:
    """Step k: from v_{k-1} to v_k."""
    pipeline.drain()
    pipeline.send_weights(k - 1)
    if k + staleness <= last:
        pipeline.submit(k + staleness)
    pipeline.train(k)


def before_validation(pipeline: Pipeline, k: int) -> None:
    """Boundary after step k: validation sees v_k and shares the pool with nothing."""
    pipeline.drain()
    pipeline.send_weights(k)


def before_checkpoint(pipeline: Pipeline) -> None:
    """Boundary after step k: a checkpoint holds v_k and complete batches only, so a resumed run
    samples none again.
    """
    pipeline.drain()
