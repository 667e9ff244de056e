"""Shared memory that a rollout worker receives weights in and vLLM's worker loads them from.

Invariants:
* A segment has a name only until vLLM's worker has mapped it: after that, not even a kill can leave
  it behind.
* Both processes map it once, because the first touch of memory costs more than a copy.
"""

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from uuid import uuid4

import torch

from verl_pipeline.weight_sync.buckets import WeightSyncError

SEGMENT_PREFIX = "verl_weights_kept_"


@dataclass(frozen=True)
class Segment:
    """A shared-memory segment.

    Attributes:
        name: below ``/dev/shm``.
        memory: its bytes, uint8.
        forget_name: removes the name; happens at the latest when the owner is collected.
    """

    name: str
    memory: torch.Tensor
    forget_name: Callable[[], object]


def create_segment(size: int, owner: object) -> Segment:
    """Allocate a segment of ``size`` bytes.

    Raises:
        WeightSyncError: ``/dev/shm`` has no room for it. Without this check, the first write would
            kill the process.
    """
    shared = SharedMemory(f"{SEGMENT_PREFIX}{uuid4().hex}", create=True, size=size)
    forget_name = weakref.finalize(owner, shared.unlink)
    path = f"/dev/shm/{shared.name}"
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        forget_name()
        raise WeightSyncError(
            f"/dev/shm has no room for {size >> 20} MiB ({error}): enlarge it, or lower "
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes, of "
            "which it holds two"
        ) from error
    finally:
        os.close(descriptor)
    memory = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
    shared.close()  # the tensor has its own mapping
    return Segment(shared.name, memory, forget_name)
