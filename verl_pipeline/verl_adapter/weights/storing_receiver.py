"""Lets a rollout worker keep versions of the weights, and load them when a replica wants them.

:class:`StoringReceiver` stands before a checkpoint engine of verl's or ours. Of each node one
worker, its leader, receives a version through that engine and stores it
(:mod:`verl_pipeline.weight_sync.version_store`); every worker of the node loads from there.
:mod:`.publication` calls the methods, through verl's ``execute_checkpoint_engine``.

Invariants:
* Without :meth:`StoringReceiver.open_store` or ``join_store`` the engine is as it was.
* No method waits for a transfer or for memory: verl calls them on the event loop on which a load
  may run at the same time.
* A receiver that cannot store takes what is sent to its end, so that the trainer is not held up.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch

from verl_pipeline.weight_sync.host_memory import check_host_memory
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


class StoringReceiver:
    """Put before a checkpoint engine; see the module."""

    bucket_size: int
    _versions: VersionReader | None = None
    _load_timeout_s: float = 0.0
    _reception: Future | None = None

    def find_node(self) -> str:
        """Ray's id of this worker's node."""
        return ray.get_runtime_context().get_node_id()

    def open_store(self, versions: int, timeout_s: float) -> list[str]:
        """As the leader, store weights from now on, and load them from there.

        Args:
            versions: most versions at a time.
            timeout_s: longest wait for others, in seconds.

        Returns:
            What the other workers of the node :meth:`join_store` with.
        """
        self._versions, self._load_timeout_s = VersionStore(versions, timeout_s), timeout_s
        return self._versions.paths

    def join_store(self, paths: list[str], timeout_s: float) -> None:
        """Load weights from what the leader of this node stores from now on."""
        self._versions, self._load_timeout_s = VersionReader(paths), timeout_s

    def check_memory(self, bytes_per_version: int) -> None:
        """Check that the store's versions have room on this node.

        Raises:
            WeightSyncError: as :func:`check_host_memory`.
        """
        check_host_memory(bytes_per_version, self._get_store().limit)

    def begin_storing(self, version: int) -> None:
        """As the leader, receive and store what the trainer sends next; see :meth:`take_stored`."""
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"store v_{version}")
        self._reception = executor.submit(self._receive_and_store, version, device)
        executor.shutdown(wait=False)

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
        """As the leader, free the memory of ``version`` once nobody reads it."""
        self._get_store().drop(version)

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
