"""One segment of shared memory for one version of the weights at a time.

It holds a page that says which version it is, the tensors, and the list of their names, shapes and
places. :mod:`.version_store` has the invariants.

Invariants:
* A segment has no name (``memfd``). Other processes of the node open it by the file descriptor of
  the one that made it, below ``/proc``.
* Memory is allocated before it is touched: without room, the first touch would kill the process.
* Only the list of a version is unpickled, and our own writer within the same job has written it.
"""

import fcntl
import os
import pickle
import struct
import weakref
from typing import NamedTuple

import torch

from verl_pipeline.weight_sync.buckets import ALIGNMENT, Entry, WeightSyncError
from verl_pipeline.weight_sync.host_memory import ADVICE, format_bytes, measure_free_memory
from verl_pipeline.weight_sync.pinned_memory import pin_memory
from verl_pipeline.weight_sync.segment_weights import view_entry

# Bytes before the tensors.
_HEAD = 4096
_FIELDS = struct.Struct("<qqq")
# Stands for the version where nothing is stored; short, so that no reader sees half of it.
_NOTHING = struct.pack("<q", -1)
# A segment grows by these bytes at least, and by this part of it: the size of the weights is not
# known before the first version has been written.
_LEAST_GROWTH = 1 << 24
_GROWTH = 1 / 8


class Head(NamedTuple):
    """The first page of a segment.

    Attributes:
        version: what it holds; -1: nothing.
        end: where the tensors end, in bytes, and their list begins.
        list_bytes: bytes of the list.
    """

    version: int
    end: int
    list_bytes: int


class WrittenSegment:
    """A segment as its writer sees it.

    Attributes:
        path: by which every process of this node can open it while this one lives.
        memory: far more than is used: untouched pages take no room.
        version: what it holds; -1: nothing.
        is_written: whether it is being written.
    """

    def __init__(self) -> None:
        capacity = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._descriptor = os.memfd_create("verl_weights")
        weakref.finalize(self, os.close, self._descriptor)
        os.truncate(self._descriptor, capacity)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.memory = torch.from_file(self.path, shared=True, size=capacity, dtype=torch.uint8)
        self._allocated = 0
        self.version = -1
        self.is_written = False
        os.pwrite(self._descriptor, _NOTHING, 0)

    def lock(self) -> bool:
        """Lock it for writing, at once; whether it could be."""
        return lock_segment(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let others read it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def grow(self, size: int) -> None:
        """Allocate at least ``size`` bytes.

        Raises:
            WeightSyncError: there is no room.
        """
        if size <= self._allocated:
            return
        size = max(size, self._allocated + max(_LEAST_GROWTH, int(_GROWTH * self._allocated)))
        size = -(-size // _HEAD) * _HEAD  # whole pages
        added, free = size - self._allocated, measure_free_memory()
        try:
            if added > free:
                raise MemoryError(f"{format_bytes(free)} are free")
            os.posix_fallocate(self._descriptor, self._allocated, added)
        except (OSError, MemoryError) as error:
            raise WeightSyncError(
                f"no host memory for the next {format_bytes(added)} of a version of the weights, "
                f"after {format_bytes(self._allocated)} ({error}): {ADVICE}"
            ) from error
        pin_memory(self.memory[self._allocated : size])
        self._allocated = size

    def publish(self, version: int, end: int, listed: bytes) -> None:
        """Complete what was written up to byte ``end``."""
        self.grow(end + len(listed))
        os.pwrite(self._descriptor, listed, end)
        os.pwrite(self._descriptor, _FIELDS.pack(version, end, len(listed)), 0)
        self.version = version

    def forget(self) -> None:
        """Whoever reads it goes on; nobody finds it any more."""
        os.pwrite(self._descriptor, _NOTHING, 0)
        self.version = -1


class VersionWriter:
    """Writes one version; see :meth:`.version_store.VersionStore.write`.

    Attributes:
        nbytes: bytes of the tensors so far.
    """

    def __init__(self, segment: WrittenSegment):
        self._segment = segment
        self._entries: list[Entry] = []
        self._end = _HEAD
        self.nbytes = 0

    def add(self, name: str, weight: torch.Tensor) -> None:
        """Copy ``weight``, of any shape, dtype and device, into the version.

        Raises:
            WeightSyncError: there is no memory for it.
        """
        entry = Entry(name, weight.shape, weight.dtype, self._end, None)
        end = self._end + weight.nbytes
        self._segment.grow(end)
        view_entry(self._segment.memory, entry).copy_(weight)
        self._entries.append(entry)
        self._end = -(-end // ALIGNMENT) * ALIGNMENT
        self.nbytes += weight.nbytes

    def finish(self, version: int) -> None:
        """Let readers find the version."""
        self._segment.publish(version, self._end, pickle.dumps(self._entries))


def read_head(descriptor: int) -> Head:
    """The first page of an opened segment."""
    return Head(*_FIELDS.unpack(os.pread(descriptor, _FIELDS.size, 0)))


def read_entries(descriptor: int) -> list[Entry]:
    """The tensors of a complete segment that is locked."""
    head = read_head(descriptor)
    return pickle.loads(os.pread(descriptor, head.list_bytes, head.end))


def lock_segment(descriptor: int, kind: int) -> bool:
    """Lock an opened segment at once; whether it could be."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
