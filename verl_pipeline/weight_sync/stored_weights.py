"""A stored version of the weights, as a rollout engine takes it."""

import asyncio
from collections.abc import AsyncIterator

import torch

from verl_pipeline.weight_sync.segment_weights import Part, SegmentWeights
from verl_pipeline.weight_sync.version_store import StoredVersion


class StoredWeights(SegmentWeights):
    """The weights of a version, loaded from the host memory of the node.

    The version is closed when the last one was taken, or when this is collected.

    Args:
        stored: the version.
        part_bytes: most bytes of a part, if its tensors are not larger.
        timeout_s: see :class:`SegmentWeights`.
        device: where tensors are handed out, for engines that take them from a GPU; None: where
            they lie.
    """

    def __init__(
        self,
        stored: StoredVersion,
        part_bytes: int,
        timeout_s: float,
        device: torch.device | None = None,
    ):
        self._stored = stored
        self._part_bytes = part_bytes
        self._device = device
        self.segment_name = stored.path
        self.memory = stored.memory
        self.timeout_s = timeout_s

    def note_mapped(self) -> None:
        """The segment has no name to forget."""

    async def receive_parts(self) -> AsyncIterator[Part]:
        entries = self._stored.entries
        start = 0
        try:
            while True:
                end, nbytes = start, 0
                while end < len(entries) and (
                    end == start or nbytes + entries[end].nbytes <= self._part_bytes
                ):
                    nbytes += entries[end].nbytes
                    end += 1
                yield Part(entries[start:end], end == len(entries))
                if end == len(entries):
                    return
                start = end
                # verl's senders wait for the engine without giving way to anybody.
                await asyncio.sleep(0)
        finally:
            self._stored.close()

    async def __aiter__(self) -> AsyncIterator[tuple[str, torch.Tensor]]:
        async for name, weight in super().__aiter__():
            if self._device is not None:
                weight = weight.to(self._device, non_blocking=True)
            yield name, weight
