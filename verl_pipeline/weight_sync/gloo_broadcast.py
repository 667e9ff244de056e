"""Bucketed broadcast of weights over gloo, from actor rank 0 to every rollout worker, on CPUs.

The CPU counterpart of verl's ``nccl`` checkpoint engine;
:mod:`.weights.checkpoint_engine` registers it with verl.

Invariants:
* One broadcast group: rank 0 is actor rank 0, ranks 1.. are the rollout workers. Other actor ranks
  only consume the generator, since gathering a sharded tensor is collective among the actor ranks.
* The group is private (its own TCP store): it shares nothing with the default group of either side.
  It is built at the first sync and kept until :meth:`GlooBroadcast.leave_group`.
* Also a send that fails takes what the actor ranks gather to its end: the others wait for it.
* A rank keeps its two buckets, because the first touch of new memory costs more than the copy into
  it. A rollout worker's buckets lie in one shared-memory segment, from which vLLM loads
  (:mod:`.weights.vllm_weight_sender`).
* Every wait ends after ``timeout_s``.
* Tensors travel whole, in the dtype that :mod:`verl_pipeline.weight_sync.rollout_dtype` says.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import ray.util
import torch
from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore

from verl_pipeline.weight_sync.buckets import (
    ALIGNMENT,
    BucketHeader,
    Entry,
    Rendezvous,
    WeightSyncError,
    compute_crc32,
)
from verl_pipeline.weight_sync.rollout_dtype import narrow_weight, parse_dtype
from verl_pipeline.weight_sync.segment_weights import Part, SegmentWeights
from verl_pipeline.weight_sync.shared_segment import Segment, create_segment


class GlooBroadcast:
    """Broadcasts weights in buckets of ``bucket_size`` bytes; two buckets are held at a time.

    Args:
        bucket_size: bytes of one bucket
            (``rollout.checkpoint_engine.update_weights_bucket_megabytes``).
        is_master: whether this process is actor rank 0.
        rollout_dtype: torch dtype name that matrices travel in ("bfloat16"), or None to send them
            as the trainer holds them.
        checksum: verify a CRC-32 of every tensor on arrival (for tests; costs about a second per 2
            GB on one core).
        timeout_s: seconds after which a wait for the other side fails.

    Raises:
        WeightSyncError: a tensor is larger than a bucket; a checksum or the number of tensors
            differs.
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
        self.sent_dtype = parse_dtype(rollout_dtype)
        self.checksum = checksum
        self.timeout = timedelta(seconds=timeout_s)
        self.rank: int | None = None
        self.segment: Segment | None = None  # where a rollout worker's buckets lie
        self._group: ProcessGroupGloo | None = None
        self._membership: tuple[int, int, Rendezvous] | None = None
        self._store: TCPStore | None = None
        self._generation = 0
        self._buckets: tuple[torch.Tensor, ...] = ()
        if is_master:
            self._host = ray.util.get_node_ip_address().strip("[]")
            self._store = TCPStore(
                self._host, 0, is_master=True, wait_for_workers=False, timeout=self.timeout
            )

    def prepare(self) -> Rendezvous | None:
        """Where the group meets; only the sender knows."""
        if self._store is None:
            return None
        return Rendezvous(self._host, self._store.port, self._generation)

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
        """Join the group and allocate the buckets; only the first sync has to.

        Raises:
            WeightSyncError: the pools are not those of the first sync, or ``/dev/shm`` is too
                small.
        """
        membership = (rank, world_size, rendezvous)
        if self._membership is not None and membership != self._membership:
            raise WeightSyncError(
                f"the pools changed from {self._membership} to {membership} during the run"
            )
        if self._membership is None and rank >= 0:
            store = self._store or TCPStore(
                rendezvous.host, rendezvous.port, is_master=False, timeout=self.timeout
            )
            meeting = PrefixStore(str(rendezvous.generation), store)
            self._group = ProcessGroupGloo(meeting, rank, world_size, self.timeout)
            self._make_buckets(is_receiver=rank > 0)
        self.rank, self._membership = rank, membership

    def _make_buckets(self, is_receiver: bool) -> None:
        if self._buckets:  # of an earlier group
            return
        size = 2 * self.bucket_size
        self.segment = create_segment(size, self) if is_receiver else None
        memory = self.segment.memory if self.segment else torch.empty(size, dtype=torch.uint8)
        self._buckets = memory.chunk(2)

    def leave_group(self) -> None:
        """Forget the group, one of whose members is gone; the next sync builds another one."""
        self._group = self._membership = self.rank = None
        self._generation += 1

    def finalize(self) -> None:
        """Does nothing: group and buckets stay for the next sync."""

    def _broadcast_tensor(self, tensor: torch.Tensor):
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
            global_steps: version of the weights; unused, since verl tells the rollout servers.

        Returns:
            ``weight_sync/bytes`` and ``weight_sync/tensors`` from actor rank 0; nothing from the
            others.
        """
        if self.rank is None or self.rank < 0:
            _take_all(weights)
            return {}
        try:
            return await self._send_all(weights)
        except BaseException:
            _take_all(weights)
            raise

    async def _send_all(self, weights: Iterator[tuple[str, torch.Tensor]]) -> dict[str, float]:
        total, tensors, offset = 0, 0, 0
        entries: list[Entry] = []
        under_way: list = []
        bucket, spare = self._buckets

        async def send_bucket(is_last: bool) -> None:
            nonlocal bucket, spare, entries, offset, under_way
            header = torch.frombuffer(
                bytearray(pickle.dumps(BucketHeader(entries, offset, is_last, tensors))),
                dtype=torch.uint8,
            )
            size = torch.tensor([header.numel()], dtype=torch.int64)
            # The spare bucket is free only when its own broadcast has ended.
            await _wait_for_broadcasts(under_way)
            # The work objects do not own their tensors: keep them until the wait.
            under_way = [
                (self._broadcast_tensor(tensor), tensor)
                for tensor in (size, header, bucket[:offset])
            ]
            bucket, spare = spare, bucket
            entries, offset = [], 0

        for name, weight in weights:
            weight = narrow_weight(weight, self.sent_dtype)
            if weight.nbytes > self.bucket_size:
                raise WeightSyncError(
                    f"{name} has {weight.nbytes / 2**20:.0f} MiB, more than a bucket: raise "
                    "actor_rollout_ref.rollout."
                    f"checkpoint_engine.update_weights_bucket_megabytes={self.bucket_size >> 20}"
                )
            if offset + weight.nbytes > self.bucket_size:
                await send_bucket(is_last=False)
            # uint8, shape (nbytes,): the place of this tensor in the bucket.
            payload = bucket[offset : offset + weight.nbytes]
            payload.view(weight.dtype).view(weight.shape).copy_(weight)
            checksum = compute_crc32(payload) if self.checksum else None
            entries.append(Entry(name, weight.shape, weight.dtype, offset, checksum))
            total, tensors = total + weight.nbytes, tensors + 1
            offset = -(-(offset + weight.nbytes) // ALIGNMENT) * ALIGNMENT
        await send_bucket(is_last=True)
        await _wait_for_broadcasts(under_way)
        return {"weight_sync/bytes": float(total), "weight_sync/tensors": float(tensors)}

    def receive_weights(self, global_steps: int | None = None) -> "IncomingWeights":
        """The weights of one sync, as they arrive."""
        return IncomingWeights(self, global_steps)

    async def receive_buckets(self) -> AsyncIterator[tuple[BucketHeader, int]]:
        """Receive bucket by bucket; the next one travels while the current one is consumed.

        Yields:
            The bucket's header, and which of the two buckets it came in; valid until the next one
            is asked for.
        """
        current = 0
        bucket = await self._receive_bucket(self._buckets[current])
        while not bucket.is_last:
            upcoming = asyncio.create_task(self._receive_bucket(self._buckets[1 - current]))
            yield bucket, current
            bucket = await upcoming
            current = 1 - current
        yield bucket, current

    async def _receive_bucket(self, buffer: torch.Tensor) -> BucketHeader:
        size = torch.empty(1, dtype=torch.int64)
        await _wait_for_broadcasts([(self._broadcast_tensor(size), size)])
        header = torch.empty(int(size), dtype=torch.uint8)
        await _wait_for_broadcasts([(self._broadcast_tensor(header), header)])
        # Written by our own sender within this job.
        bucket: BucketHeader = pickle.loads(header.numpy().tobytes())
        await _wait_for_broadcasts([(self._broadcast_tensor(buffer[: bucket.length]), buffer)])
        return bucket


class IncomingWeights(SegmentWeights):
    """The weights of one sync at a rollout worker, in two halves of a segment, a bucket each.

    Raises:
        WeightSyncError: the number of tensors or, with ``checksum``, a tensor differs from what was
            sent.
    """

    def __init__(self, engine: GlooBroadcast, version: int | None):
        assert engine.segment is not None, "a rollout worker joins before it receives"
        self._segment = engine.segment
        self.segment_name = engine.segment.name
        self.memory = engine.segment.memory
        self.timeout_s = engine.timeout.total_seconds()
        self._engine = engine
        self._version = version

    def note_mapped(self) -> None:
        self._segment.forget_name()

    async def receive_parts(self) -> AsyncIterator[Part]:
        received = 0
        async for bucket, which in self._engine.receive_buckets():
            start = which * self._engine.bucket_size
            entries = [replace(entry, offset=start + entry.offset) for entry in bucket.entries]
            for entry in entries:
                if entry.checksum is None:
                    continue
                payload = self.memory[entry.offset : entry.offset + entry.nbytes]
                if compute_crc32(payload) != entry.checksum:
                    raise WeightSyncError(f"{self._label}: {entry.name} arrived damaged")
            received += len(entries)
            if received != bucket.tensors:
                raise WeightSyncError(f"{self._label}: got {received} of {bucket.tensors} tensors")
            yield Part(entries, bucket.is_last)

    @property
    def _label(self) -> str:
        return f"weight sync of version {self._version} at rank {self._engine.rank}"


def _take_all(weights: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Gathering each sharded tensor is collective: every actor rank has to take part."""
    for _name, _weight in weights:
        pass


async def _wait_for_broadcasts(works: list) -> None:
    """Wait for broadcasts without blocking the actor's event loop."""
    for work, _tensor in works:
        await asyncio.to_thread(work.wait)
