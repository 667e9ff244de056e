"""Keeps versions of the weights in host memory, from which a replica loads them when it likes.

:class:`StoringEngine` stands before a checkpoint engine of verl's or ours. On each node, one
process stores versions (:mod:`verl_pipeline.weight_sync.version_store`): the sender itself, or a
rollout worker, the node's leader, which receives them through that engine. Every rollout worker of
the node loads from there. :mod:`.version_transport` calls the methods, through verl's
``execute_checkpoint_engine``.

Invariants:
* Without :meth:`StoringEngine.open_store` or ``join_store`` the engine is as it was.
* No method of a rollout worker waits for a transfer or for memory: verl calls them on the event
  loop on which a load may run at the same time.
* Whoever cannot store takes what is gathered or sent to its end: the trainer's other ranks take
  part in it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch

from verl_pipeline.weight_sync.host_memory import check_host_memory
from verl_pipeline.weight_sync.rollout_dtype import NarrowedWeights, Weight
from verl_pipeline.weight_sync.segment_weights import SegmentWeights
from verl_pipeline.weight_sync.stored_weights import StoredWeights
from verl_pipeline.weight_sync.version_store import VersionReader, VersionStore


@dataclass(frozen=True)
class StoreReport:
    """What a leader stored.

    Attributes:
        version: which version.
        nbytes: its bytes.
        seconds: from the first call to the last tensor.
    """

    version: int
    nbytes: int
    seconds: float


class StoringEngine:
    """Put before a checkpoint engine; see the module."""

    bucket_size: int
    is_master: bool
    observe: Callable[[Iterator[Weight]], Iterator[Weight]]
    _keeps_sends: bool = False
    _versions: VersionReader | None = None
    _load_timeout_s: float = 0.0
    _reception: Future | None = None

    def find_node(self) -> str:
        """Ray's id of this worker's node."""
        return ray.get_runtime_context().get_node_id()

    def open_store(self, versions: int, timeout_s: float) -> list[str]:
        """As the process of its node that stores, do so from now on, and load from there.

        Args:
            versions: most versions at a time.
            timeout_s: longest wait for others, in seconds.

        Returns:
            What the other workers of the node :meth:`join_store` with.
        """
        self._versions, self._load_timeout_s = VersionStore(versions, timeout_s), timeout_s
        return self._versions.paths

    def join_store(self, paths: list[str], timeout_s: float) -> None:
        """Load weights from what another process of this node stores, from now on."""
        self._versions, self._load_timeout_s = VersionReader(paths), timeout_s

    def check_memory(self, bytes_per_version: int) -> None:
        """Check that the versions of the store, if there is one, have room on this node.

        Raises:
            WeightSyncError: as :func:`check_host_memory`.
        """
        if self._versions is not None:
            check_host_memory(bytes_per_version, self._get_store().limit)

    def begin_storing(self, version: int) -> None:
        """As the leader, receive and store what the trainer sends next; see :meth:`take_stored`."""
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"store v_{version}")
        self._reception = executor.submit(self._receive_and_store, version, device)
        executor.shutdown(wait=False)

    def has_ended_reception(self) -> bool:
        """Whether nothing is being received."""
        return self._reception is None or self._reception.done()

    def take_stored(self) -> StoreReport | None:
        """What :meth:`begin_storing` did; None until it is done.

        Raises:
            WeightSyncError: the version is not stored.
        """
        if self._reception is None or not self._reception.done():
            return None
        reception, self._reception = self._reception, None
        return reception.result()

    def drop_version(self, version: int) -> None:
        """Free the memory of ``version`` once nobody reads it."""
        if self._versions is not None:
            self._get_store().drop(version)

    def keep_sends(self, versions: int, timeout_s: float) -> list[str]:
        """As a rank of the trainer, store what is sent, instead of sending it, from now on.

        The sender does so; the other ranks only help to gather, and have no store.

        Args:
            versions, timeout_s: as of :meth:`open_store`.

        Returns:
            From the sender, what :meth:`join_store` takes.
        """
        self._keeps_sends = True
        return self.open_store(versions, timeout_s) if self.is_master else []

    async def send_weights(
        self, weights: Iterator[Weight], global_steps: int | None = None
    ) -> dict[str, float]:
        """As the engine's own.

        Returns:
            ``weight_sync/bytes`` and ``weight_sync/tensors`` from the sender that stores.

        Raises:
            WeightSyncError: version ``global_steps`` cannot be stored.
        """
        if not self._keeps_sends:
            return await super().send_weights(weights, global_steps=global_steps)  # type: ignore[misc]
        assert global_steps is not None, "what is stored has a version"
        report: dict[str, float] = {}
        try:
            if self.is_master:
                weights = self.observe(weights)
                # Engines that cast by themselves name their dtype as verl does.
                dtype = getattr(self, "sent_dtype", getattr(self, "rollout_dtype", None))
                narrowed = NarrowedWeights(weights, dtype)
                with torch.no_grad():
                    self._get_store().put(global_steps, narrowed)
                report["weight_sync/bytes"] = float(narrowed.nbytes)
                report["weight_sync/tensors"] = float(narrowed.tensors)
        finally:
            for _name, _weight in weights:
                pass
        return report

    def receive_weights(self, global_steps: int | None = None) -> Any:
        """The weights of version ``global_steps``, from the node's store if there is one.

        Raises:
            VersionMissing: the store does not hold it.
        """
        if self._versions is None:
            return super().receive_weights(global_steps=global_steps)  # type: ignore[misc]
        assert global_steps is not None, "a load names its version"
        device = None
        if torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
        stored = self._versions.get(global_steps)
        return StoredWeights(stored, self.bucket_size, self._load_timeout_s, device)

    def _get_store(self) -> VersionStore:
        assert isinstance(self._versions, VersionStore), "open_store() comes first"
        return self._versions

    def _receive_and_store(self, version: int, device: int | None) -> StoreReport:
        """Runs in a thread of its own, with an event loop of its own."""
        if device is not None:
            torch.cuda.set_device(device)
        start = time.perf_counter()
        weights = super().receive_weights(global_steps=version)  # type: ignore[misc]
        if isinstance(weights, SegmentWeights):
            weights.note_mapped()  # nobody else will
        with torch.no_grad():
            nbytes = asyncio.run(self._store_all(version, aiter(weights)))
        return StoreReport(version, nbytes, time.perf_counter() - start)

    async def _store_all(self, version: int, weights: AsyncIterator) -> int:
        try:
            with self._get_store().write(version) as writer:
                async for name, weight in weights:
                    writer.add(name, weight)
        except Exception:
            async for _name, _weight in weights:
                pass
            raise
        return writer.nbytes
