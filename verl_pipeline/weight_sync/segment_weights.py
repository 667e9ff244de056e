"""Weights that lie in shared memory when a rollout engine loads them.

Invariant: what a part names stays as it is until the next part is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import torch

from verl_pipeline.weight_sync.buckets import Entry


@dataclass(frozen=True)
class Part:
    """Some of the weights.

    Attributes:
        entries: what they are; offsets count from the segment's start.
        is_last: whether they are the last ones.
    """

    entries: Sequence[Entry]
    is_last: bool


class SegmentWeights(ABC):
    """The weights of one load: an async iterable of (name, tensor).

    A tensor is valid until the next one is asked for.

    Attributes:
        segment_name: of the shared memory below ``/dev/shm``, or its absolute path.
        memory: its bytes, uint8.
        timeout_s: seconds to wait for whoever loads them.
    """

    segment_name: str
    memory: torch.Tensor
    timeout_s: float

    @abstractmethod
    def receive_parts(self) -> AsyncIterator[Part]:
        """The weights, part by part."""

    @abstractmethod
    def note_mapped(self) -> None:
        """The loader has mapped the segment, once and for all."""

    async def __aiter__(self) -> AsyncIterator[tuple[str, torch.Tensor]]:
        async for part in self.receive_parts():
            for entry in part.entries:
                yield entry.name, view_entry(self.memory, entry)


def view_entry(memory: torch.Tensor, entry: Entry) -> torch.Tensor:
    """The tensor that ``entry`` names in ``memory`` (uint8), whose bytes it shares."""
    payload = memory[entry.offset : entry.offset + entry.nbytes]
    return payload.view(entry.dtype).view(entry.shape)
