"""Writes versions of weights into shared-memory segments; :mod:`.version_store` has the invariants.

A segment holds a page that says which version it is, the tensors, and the list of their names,
shapes and places.
"""

import fcntl
import os
import pickle
import struct
import weakref
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import torch

from verl_pipeline.weight_sync.buckets import ALIGNMENT, Entry, WeightSyncError
from verl_pipeline.weight_sync.pinned_memory import pin_memory
from verl_pipeline.weight_sync.segment_weights import view_entry

FOLDER = Path("/dev/shm")
# Bytes before the tensors.
_HEAD = 4096
# Version, place and bytes of the list of tensors.
_FIELDS = struct.Struct("<qqq")
# Stands for the version where nothing is stored; short, so that no reader sees half of it.
_NOTHING = struct.pack("<q", -1)
# A segment grows by these bytes at least, and by this part of it: the size of the weights is not
# known before the first version has been written.
_LEAST_GROWTH = 1 << 24
_GROWTH = 1 / 8


class VersionWriter:
    """Writes one version; see :meth:`VersionStore.write`.

    Attributes:
        nbytes: bytes of the tensors so far.
    """

    def __init__(self, segment: "WrittenSegment"):
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


class WrittenSegment:
    """A segment as its writer sees it.

    Attributes:
        version: what it holds; -1: nothing.
        is_written: whether it is being written.
    """

    def __init__(self, name: str):
        self.name = name
        # Far more than is used: untouched pages of shared memory take no room.
        capacity = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        shared = SharedMemory(name, create=True, size=capacity)
        self.remove = weakref.finalize(self, shared.unlink)
        path = str(FOLDER / name)
        self._descriptor = os.open(path, os.O_RDWR)
        weakref.finalize(self, os.close, self._descriptor)
        self.memory = torch.from_file(path, shared=True, size=capacity, dtype=torch.uint8)
        shared.close()  # the tensor has its own mapping
        self._allocated = 0
        self.version = -1
        self.is_written = False
        self.grow(_HEAD)
        os.pwrite(self._descriptor, _NOTHING, 0)

    def lock(self) -> bool:
        return lock_segment(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def grow(self, size: int) -> None:
        """Allocate at least ``size`` bytes: without room, the first write would kill the process.

        Raises:
            WeightSyncError: there is no room.
        """
        if size <= self._allocated:
            return
        if size > _HEAD:
            growth = max(_LEAST_GROWTH, int(_GROWTH * self._allocated))
            size = max(size, self._allocated + growth)
        size = -(-size // _HEAD) * _HEAD  # whole pages
        try:
            os.posix_fallocate(self._descriptor, self._allocated, size - self._allocated)
        except OSError as error:
            raise WeightSyncError(
                f"/dev/shm has no room for the next {(size - self._allocated) >> 20} MiB of a "
                f"version of the weights ({error}): enlarge it (Docker's --shm-size), or lower "
                "trainer.v1.one_off_pipeline.staleness"
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


def read_head(descriptor: int) -> tuple[int, int, int]:
    """Version (-1: none), place and bytes of its list."""
    head = os.pread(descriptor, _FIELDS.size, 0)
    return _FIELDS.unpack(head) if len(head) == _FIELDS.size else (-1, 0, 0)


def lock_segment(descriptor: int, kind: int) -> bool:
    """Lock a segment at once; whether it could be."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
