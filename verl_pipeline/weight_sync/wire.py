"""What travels between the two sides of a weight sync: buckets of whole tensors, each behind a
header.

Invariant: a header is written by our own sender within the same job; it is the only thing that is
unpickled.
"""

import zlib
from dataclasses import dataclass

import torch

# Bytes; a tensor is viewed in its own dtype, of which none is wider.
ALIGNMENT = 16


class WeightSyncError(RuntimeError):
    """What arrived is not what was sent, or cannot be sent."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the sender's TCP store listens."""

    host: str
    port: int


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
class Bucket:
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


def crc32(payload: torch.Tensor) -> int:
    """CRC-32 of a uint8 tensor on the CPU."""
    return zlib.crc32(memoryview(payload.numpy()))
