"""verl checkpoint engine ``gloo``: bucketed broadcast from actor rank 0 to every rollout worker, on CPUs.

The CPU twin of verl's ``nccl`` engine. verl loads it in the processes that need it through
``rollout.checkpoint_engine.custom_backend_module``.

Invariants:
* One broadcast group: rank 0 is actor rank 0, ranks 1.. are the rollout workers. Other actor ranks only walk the
  generator, since gathering a sharded tensor is collective among the actor ranks.
* The group is private (its own TCP store): it shares nothing with the default group of either side. It is built at
  the first sync and kept.
* Every wait ends after ``timeout_s``.
* Tensors travel in ``rollout_dtype`` when one is given; integer tensors as they are.
"""

import asyncio
import pickle
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import timedelta

import ray.util
import torch
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine.base import (
    CheckpointEngine,
    CheckpointEngineRegistry,
    TensorMeta,
    merge_weight_chunks,
    split_weight_chunks,
)

# Bytes; a chunk is viewed in its tensor's dtype, of which none is wider.
ALIGNMENT = 16


class WeightSyncError(RuntimeError):
    """What arrived is not what was sent."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the sender's TCP store listens."""

    host: str
    port: int


@dataclass
class Bucket:
    """Header of one bucket on the wire.

    Attributes:
        chunks: what lies in the bucket, in order.
        length: bytes of payload.
        is_last: whether the sync ends with this bucket.
        checksums: CRC-32 of each chunk, in order; empty unless checksums are on.
        tensors: number of tensors sent up to and including this bucket.
    """

    chunks: list[TensorMeta]
    length: int
    is_last: bool
    checksums: list[int]
    tensors: int


def _crc32(chunk: torch.Tensor) -> int:
    return zlib.crc32(memoryview(chunk.numpy()))


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Broadcasts weights in buckets of ``bucket_size`` bytes; two buckets are held at a time.

    Args:
        bucket_size: bytes of one bucket (``rollout.checkpoint_engine.update_weights_bucket_megabytes``).
        is_master: whether this process is actor rank 0.
        rollout_dtype: torch dtype name that floating-point tensors travel in ("bfloat16"), or None to send them as
            the trainer holds them.
        checksum: verify a CRC-32 of every chunk on arrival (for tests; costs about a second per 2 GB on one core).
        timeout_s: seconds after which a wait for the other side fails.

    Raises:
        WeightSyncError: a checksum or the number of tensors differs.
    """

    def __init__(
        self,
        bucket_size: int,
        is_master: bool = False,
        rollout_dtype: str | None = None,
        checksum: bool = False,
        timeout_s: float = 600.0,
    ) -> None:
        self.bucket_size = bucket_size
        self.is_master = is_master
        self.dtype = getattr(torch, rollout_dtype) if rollout_dtype else None
        self.checksum = checksum
        self.timeout = timedelta(seconds=timeout_s)
        self.rank: int | None = None
        self._group: ProcessGroupGloo | None = None
        self._membership: tuple[int, int, Rendezvous] | None = None
        self._store: TCPStore | None = None
        self._buffers: list[torch.Tensor] = []
        if is_master:
            self._host = ray.util.get_node_ip_address().strip("[]")
            self._store = TCPStore(self._host, 0, is_master=True, wait_for_workers=False, timeout=self.timeout)

    def prepare(self) -> Rendezvous | None:
        """Allocate the two buckets; the sender tells where to meet."""
        self._buffers = [torch.empty(self.bucket_size, dtype=torch.uint8) for _ in range(2)]
        return Rendezvous(self._host, self._store.port) if self._store is not None else None

    @classmethod
    def build_topology(cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list):
        """Ranks of the broadcast group; actor ranks other than 0 stay out of it (rank -1)."""
        rendezvous = next(entry for entry in metadata[:actor_wg_world_size] if entry is not None)
        world_size = 1 + rollout_world_size
        actor = {
            "rank": [0] + [-1] * (actor_wg_world_size - 1),
            "world_size": [world_size] * actor_wg_world_size,
            "rendezvous": [rendezvous] * actor_wg_world_size,
        }
        rollout = {
            "rank": list(range(1, world_size)),
            "world_size": [world_size] * rollout_world_size,
            "rendezvous": [rendezvous] * rollout_world_size,
        }
        return actor, rollout

    def init_process_group(self, rank: int, world_size: int, rendezvous: Rendezvous) -> None:
        """Join the broadcast group at the first sync; later syncs find it as it is.

        Raises:
            WeightSyncError: the pools are not those of the first sync.
        """
        membership = (rank, world_size, rendezvous)
        if self._membership is not None and membership != self._membership:
            raise WeightSyncError(f"the pools changed from {self._membership} to {membership} during the run")
        if self._membership is None and rank >= 0:
            store = self._store or TCPStore(rendezvous.host, rendezvous.port, is_master=False, timeout=self.timeout)
            self._group = ProcessGroupGloo(store, rank, world_size, self.timeout)
        self.rank, self._membership = rank, membership

    def finalize(self) -> None:
        """Free the buckets; the group stays for the next sync."""
        self._buffers = []

    def _broadcast(self, tensor: torch.Tensor):
        options = torch.distributed.BroadcastOptions()
        options.rootRank = 0
        assert self._group is not None
        return self._group.broadcast([tensor], options)

    @torch.no_grad()
    async def send_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Send all weights.

        Args:
            weights: name and full tensor of each weight.
            global_steps: version of the weights (the rollout server is told by verl).

        Returns:
            ``weight_sync/bytes`` and ``weight_sync/tensors`` from actor rank 0; nothing from the others.
        """
        if self.rank is None or self.rank < 0:
            for _name, _weight in weights:
                pass
            return {}
        total, tensors = 0, 0
        previous: list = []
        chunks: list[TensorMeta] = []
        checksums: list[int] = []
        buffer, spare = self._buffers
        offset = 0

        async def flush(is_last: bool) -> None:
            nonlocal buffer, spare, chunks, checksums, offset, previous
            header = torch.frombuffer(
                bytearray(pickle.dumps(Bucket(chunks, offset, is_last, checksums, tensors))), dtype=torch.uint8
            )
            size = torch.tensor([header.numel()], dtype=torch.int64)
            await _wait(previous)  # the spare bucket is free only after its own broadcast
            # the work objects do not own their tensors: keep them until the wait
            previous = [(self._broadcast(tensor), tensor) for tensor in (size, header, buffer[:offset])]
            buffer, spare = spare, buffer
            chunks, checksums, offset = [], [], 0

        async for meta, chunk in split_weight_chunks(self._travelling(weights), self.bucket_size):
            offset = -(-offset // ALIGNMENT) * ALIGNMENT
            if offset + meta.chunk_size > self.bucket_size:
                await flush(is_last=False)
            meta.offset = offset
            buffer[offset : offset + meta.chunk_size] = chunk
            chunks.append(meta)
            if self.checksum:
                checksums.append(_crc32(buffer[offset : offset + meta.chunk_size]))
            tensors += meta.chunk_offset == 0
            total += meta.chunk_size
            offset += meta.chunk_size
        await flush(is_last=True)
        await _wait(previous)
        return {"weight_sync/bytes": float(total), "weight_sync/tensors": float(tensors)}

    def _travelling(self, weights: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in weights:
            if self.dtype is not None and weight.is_floating_point():
                weight = weight.to(self.dtype)
            yield name, weight.contiguous()

    @torch.no_grad()
    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        """Yield name and tensor of each weight; a tensor is valid until the next one is asked for.

        Raises:
            WeightSyncError: the number of tensors or, with ``checksum``, a chunk differs from what was sent.
        """
        received = 0
        expected = 0

        async def chunks():
            nonlocal expected
            async for bucket, payload in self._buckets():
                expected = bucket.tensors
                for index, meta in enumerate(bucket.chunks):
                    chunk = payload[meta.offset : meta.offset + meta.chunk_size]
                    if bucket.checksums and _crc32(chunk) != bucket.checksums[index]:
                        raise WeightSyncError(
                            f"weight sync of version {global_steps}: {meta.name} arrived damaged at rank {self.rank}"
                        )
                    yield meta, chunk

        async for name, weight in merge_weight_chunks(chunks(), self.bucket_size):
            received += 1
            yield name, weight
        if received != expected:
            raise WeightSyncError(
                f"weight sync of version {global_steps}: rank {self.rank} got {received} of {expected} tensors"
            )

    async def _buckets(self) -> AsyncGenerator[tuple[Bucket, torch.Tensor], None]:
        """Receive bucket by bucket; the next one travels while the current one is consumed."""
        buffer, spare = self._buffers
        bucket = await self._receive(buffer)
        while not bucket.is_last:
            upcoming = asyncio.create_task(self._receive(spare))
            yield bucket, buffer[: bucket.length]
            bucket = await upcoming
            buffer, spare = spare, buffer
        yield bucket, buffer[: bucket.length]

    async def _receive(self, buffer: torch.Tensor) -> Bucket:
        size = torch.empty(1, dtype=torch.int64)
        await _wait([(self._broadcast(size), size)])
        header = torch.empty(int(size), dtype=torch.uint8)
        await _wait([(self._broadcast(header), header)])
        # Written by our own sender within this job.
        bucket: Bucket = pickle.loads(header.numpy().tobytes())
        await _wait([(self._broadcast(buffer[: bucket.length]), buffer)])
        return bucket


async def _wait(works: list) -> None:
    """Wait for broadcasts without blocking the actor's event loop."""
    for work, _tensor in works:
        await asyncio.to_thread(work.wait)
