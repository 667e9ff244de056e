"""Buckets of whole tensors, each behind a header: what the two sides of a weight sync exchange.

Invariant: only headers are unpickled, and our own sender within the same job has written them.
"""

import zlib
from dataclasses import dataclass

import torch

# Bytes. A tensor is viewed in its own dtype in the bucket, and no dtype is wider.
ALIGNMENT = 16


class WeightSyncError(RuntimeError):
    """Weights cannot be sent, or did not arrive as they were sent."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the sender's TCP store listens.

    Attributes:
        generation: of the group that meets there.
    """

    host: str
    port: int
    generation: int = 0


@dataclass(frozen=True)
class Entry:
    """One tensor in a bucket; ``offset`` in bytes from the bucket's start."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    offset: int
    checksum: int | None

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


@dataclass
class BucketHeader:
    """Header of one bucket on the wire.

    Attributes:
        entries: what lies in the bucket, in order.
        length: bytes of payload.
        is_last: whether the sync ends with this bucket.
        tensors: number of tensors sent up to and including this bucket.
    """

    entries: list[Entry]
    length: int
    is_last: bool
    tensors: int


def compute_crc32(payload: torch.Tensor) -> int:
    """CRC-32 of a uint8 tensor on the CPU."""
    return zlib.crc32(memoryview(payload.numpy()))
