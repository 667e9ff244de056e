"""Versions of weights in the host memory of a node: one process writes them, all others read them.

A version lies in one shared-memory segment below ``/dev/shm``: a page that says which version it
is, the tensors, and the list of their names, shapes and places.

Invariants:
* A segment is reused for a later version, and mapped once by each process: the first touch of
  memory costs more than a copy.
* A writer holds an exclusive lock on a segment (``flock``), a reader a shared one. The kernel frees
  the locks of a dead process, so neither side can block the other for ever, and what is read is
  never overwritten.
* A version is found only when it is complete, and no more once it was dropped.
* Only the list of a version is unpickled, and our own writer within the same job has written it.
* Names are unique to the run. They go with the writer, whose resource tracker outlives a kill.
"""

import fcntl
import os
import pickle
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from verl_pipeline.weight_sync.buckets import Entry, WeightSyncError
from verl_pipeline.weight_sync.pinned_memory import pin_memory
from verl_pipeline.weight_sync.segment_weights import view_entry
from verl_pipeline.weight_sync.shared_segment import SEGMENT_PREFIX
from verl_pipeline.weight_sync.version_writer import (
    FOLDER,
    VersionWriter,
    WrittenSegment,
    lock_segment,
    read_head,
)

_POLL_S = 0.01


class VersionMissing(WeightSyncError):
    """A version is not, or no longer, stored here."""


class VersionStore:
    """The versions of one node; one process of the node writes, by :meth:`put` or :meth:`write`.

    Args:
        name: of the store, unique among the runs and nodes of a machine.
        limit: most versions at a time.
        timeout_s: longest wait for readers of a version that was dropped, in seconds.
    """

    def __init__(self, name: str, limit: int, timeout_s: float = 600.0):
        self._prefix = f"{SEGMENT_PREFIX}{name}_"
        self.limit = limit
        self.timeout_s = timeout_s
        self._segments: list[WrittenSegment] = []
        self._mapped: dict[str, torch.Tensor] = {}
        self._change = threading.Lock()

    def put(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> int:
        """Store ``weights`` as ``version``.

        Returns:
            Their bytes.

        Raises:
            WeightSyncError: as :meth:`write`.
        """
        with self.write(version) as writer:
            for name, weight in weights:
                writer.add(name, weight)
        return writer.nbytes

    @contextmanager
    def write(self, version: int) -> Iterator[VersionWriter]:
        """Add tensors to ``version``, which is found when the block ends, unless by an error.

        Raises:
            WeightSyncError: it is stored already, ``limit`` others are, the last reader of a
                dropped one did not end in time, or there is no memory for it.
        """
        segment = self._take_segment(version)
        try:
            writer = VersionWriter(segment)
            yield writer
            writer.finish(version)
        finally:
            segment.is_written = False
            segment.unlock()

    def get(self, version: int) -> "StoredVersion":
        """``version``, to be read until it is closed; meanwhile its memory stays as it is.

        Raises:
            VersionMissing: it is not stored here.
        """
        held: list[int] = []
        for path in sorted(FOLDER.glob(f"{self._prefix}*")):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # its writer has just ended
                continue
            found, place, nbytes = read_head(descriptor)
            if found == version and lock_segment(descriptor, fcntl.LOCK_SH):
                # It may have been replaced before the lock.
                found, place, nbytes = read_head(descriptor)
                if found == version:
                    memory = self._map(path, place)
                    return StoredVersion(version, path.name, memory, descriptor, nbytes)
            os.close(descriptor)
            held += [found] if found >= 0 else []
        stored = ", ".join(f"v_{other}" for other in sorted(held)) or "nothing"
        raise VersionMissing(f"v_{version} is not in this node's host memory, which holds {stored}")

    def drop(self, version: int) -> None:
        """Let the memory of ``version`` be used for another, once those who read it have ended.

        Raises:
            VersionMissing: this process did not store it.
        """
        with self._change:
            for segment in self._segments:
                if segment.version == version:
                    return segment.forget()
        raise VersionMissing(f"v_{version} was not stored here, so it cannot be dropped")

    def list_versions(self) -> list[int]:
        """What this process has stored and not dropped, in order."""
        return sorted(segment.version for segment in self._segments if segment.version >= 0)

    def close(self) -> None:
        """Remove what this process has stored; what others have mapped stays with them."""
        for segment in self._segments:
            segment.remove()
        self._segments.clear()
        self._mapped.clear()

    def _take_segment(self, version: int) -> WrittenSegment:
        """A locked segment that holds nothing any more."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            with self._change:
                versions = self.list_versions()
                if version in versions:
                    raise WeightSyncError(f"v_{version} is stored already")
                if len(versions) >= self.limit:
                    listed = ", ".join(f"v_{other}" for other in versions)
                    raise WeightSyncError(
                        f"no place for v_{version}: {listed} are stored, and {self.limit} is the "
                        "most; drop one first"
                    )
                free = [one for one in self._segments if one.version < 0 and not one.is_written]
                segment = next((one for one in free if one.lock()), None)
                if segment is None and len(self._segments) < self.limit:
                    segment = WrittenSegment(f"{self._prefix}{len(self._segments)}")
                    self._segments.append(segment)
                    segment.lock()
                if segment is not None:
                    segment.is_written = True
                    return segment
            if time.monotonic() > deadline:
                raise WeightSyncError(
                    f"no place for v_{version}: all versions that were dropped have been read for "
                    f"{self.timeout_s:g} s and more; a replica that loads one of them hangs"
                )
            time.sleep(_POLL_S)

    def _map(self, path: Path, size: int) -> torch.Tensor:
        """The first ``size`` bytes of a segment, uint8."""
        for segment in self._segments:
            if segment.name == path.name:
                return segment.memory[:size]
        mapped = self._mapped.get(path.name)
        if mapped is None or mapped.numel() < size:
            mapped = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
            pin_memory(mapped)
            self._mapped[path.name] = mapped
        return mapped[:size]


class StoredVersion:
    """A version that is being read; close it, or use it as a context manager.

    Attributes:
        version: its number.
        segment_name: where it lies, below ``/dev/shm``.
        memory: the bytes there, uint8.
        entries: its tensors, in the order in which they were stored.
    """

    def __init__(
        self, version: int, name: str, memory: torch.Tensor, descriptor: int, list_bytes: int
    ):
        self.close = weakref.finalize(self, os.close, descriptor)  # frees the lock
        self.version = version
        self.segment_name = name
        self.memory = memory
        listed = os.pread(descriptor, list_bytes, memory.numel())
        self.entries: list[Entry] = pickle.loads(listed)

    def __enter__(self) -> "StoredVersion":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor, which shares the store's memory and is valid until it is closed."""
        for entry in self.entries:
            yield entry.name, view_entry(self.memory, entry)
