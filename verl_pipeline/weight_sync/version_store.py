"""Versions of weights in the host memory of a node: one process writes them, all others read them.

A version lies in one segment of shared memory (:mod:`.version_segment`).

Invariants:
* A segment is reused for a later version, and mapped once by each process: the first touch of
  memory costs more than a copy.
* A writer holds an exclusive lock on a segment (``flock``), a reader a shared one. The kernel frees
  the locks of a dead process, so neither side can block the other for ever, and what is read is
  never overwritten.
* A version is found only when it is complete, and no more once it was dropped.
* Segments have no names: they go with the last process that holds them, however that ends.
"""

import fcntl
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from verl_pipeline.weight_sync.buckets import Entry, WeightSyncError
from verl_pipeline.weight_sync.pinned_memory import pin_memory
from verl_pipeline.weight_sync.segment_weights import view_entry
from verl_pipeline.weight_sync.version_segment import (
    VersionWriter,
    WrittenSegment,
    lock_segment,
    read_entries,
    read_head,
)

_POLL_S = 0.01


class VersionMissing(WeightSyncError):
    """A version is not, or no longer, stored here."""


class VersionReader:
    """Reads versions that another process of this node stores.

    Args:
        paths: that process's :attr:`VersionStore.paths`.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self._mapped: dict[str, torch.Tensor] = {}

    def get(self, version: int) -> "StoredVersion":
        """``version``, to be read until it is closed; meanwhile its memory stays as it is.

        Raises:
            VersionMissing: it is not stored here.
        """
        held: list[int] = []
        for path in self.paths:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise VersionMissing(
                    f"v_{version} is lost: the process of this node that stored it has ended"
                ) from error
            found = read_head(descriptor).version
            if found == version and lock_segment(descriptor, fcntl.LOCK_SH):
                head = read_head(descriptor)  # it may have been replaced before the lock
                if head.version == version:
                    memory = self._map(path, head.end)
                    return StoredVersion(path, memory, descriptor, read_entries(descriptor))
            os.close(descriptor)
            held += [found] if found >= 0 else []
        stored = ", ".join(f"v_{other}" for other in sorted(held)) or "nothing"
        raise VersionMissing(f"v_{version} is not in this node's host memory, which holds {stored}")

    def _map(self, path: str, size: int) -> torch.Tensor:
        """The first ``size`` bytes of a segment, uint8."""
        mapped = self._mapped.get(path)
        if mapped is None or mapped.numel() < size:
            mapped = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
            pin_memory(mapped)
            self._mapped[path] = mapped
        return mapped[:size]


class VersionStore(VersionReader):
    """Stores versions, and reads them.

    Args:
        limit: most versions at a time.
        timeout_s: longest wait for readers of a version that was dropped, in seconds.

    Attributes:
        paths: for the :class:`VersionReader` of the other processes.
    """

    def __init__(self, limit: int, timeout_s: float = 600.0):
        self.limit = limit
        self.timeout_s = timeout_s
        self._segments = [WrittenSegment() for _ in range(limit)]
        self._change = threading.Lock()
        super().__init__([segment.path for segment in self._segments])
        self._mapped = {segment.path: segment.memory for segment in self._segments}

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

    def drop(self, version: int) -> None:
        """Let the memory of ``version`` be used for another, once those who read it have ended.

        Raises:
            VersionMissing: it is not stored.
        """
        with self._change:
            for segment in self._segments:
                if segment.version == version:
                    return segment.forget()
        raise VersionMissing(f"v_{version} was not stored here, so it cannot be dropped")

    def list_versions(self) -> list[int]:
        """What is stored and was not dropped, in order."""
        return sorted(segment.version for segment in self._segments if segment.version >= 0)

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
                for segment in self._segments:
                    if segment.version < 0 and not segment.is_written and segment.lock():
                        segment.is_written = True
                        return segment
            if time.monotonic() > deadline:
                raise WeightSyncError(
                    f"no place for v_{version}: all versions that were dropped have been read for "
                    f"{self.timeout_s:g} s and more; a replica that loads one of them hangs"
                )
            time.sleep(_POLL_S)


class StoredVersion:
    """A version that is being read; close it, or use it as a context manager.

    Attributes:
        path: of its segment, for every process of this node while the storing one lives.
        memory: the bytes of the segment, uint8.
        entries: its tensors, in the order in which they were stored.
    """

    def __init__(self, path: str, memory: torch.Tensor, descriptor: int, entries: list[Entry]):
        self.close = weakref.finalize(self, os.close, descriptor)  # frees the lock
        self.path = path
        self.memory = memory
        self.entries = entries

    def __enter__(self) -> "StoredVersion":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor, which shares the store's memory and is valid until it is closed."""
        for entry in self.entries:
            yield entry.name, view_entry(self.memory, entry)
