"""Fingerprints of tensors: what a trainer sent and what a rollout engine holds can be compared
without moving either.

Invariants:
* A digest is a sum over elements, modulo 2^64, of a mixed value of each element's bits. Integer
  sums are exact, so the order of elements, sharding and fusing change nothing: the digests of
  parts add up to the digest of the whole, on every device.
* One changed element changes the digest, whatever the change: the mixing is a bijection.
* An element of value 0 (all bits 0) adds 0, so padding with zeros changes nothing.
"""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import torch

MODULUS = 1 << 64
# Odd, so that multiplying by it is a bijection modulo 2^64; the constant of SplitMix64 as int64.
_MULTIPLIER = -7046029254386353131
# Elements at a time: the copies as int64 stay small beside the weights, and in a CPU's cache.
_CHUNK = {"cpu": 1 << 18}
_CHUNK_ON_DEVICE = 1 << 22
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class TensorSum:
    """Fingerprint of one tensor, or of a part of one.

    Attributes:
        digest: sum of the mixed elements, 0 to 2^64 - 1.
        total: sum of the elements in float64, for people to compare; depends on the order.
        dtype: torch's name of the dtype that the elements were looked at in ("bfloat16").
    """

    digest: int
    total: float
    dtype: str


@torch.no_grad()
def fingerprint_tensor(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> TensorSum:
    """Fingerprint of a tensor of any shape and device.

    Args:
        dtype: look at floating-point elements as if they were stored in this dtype; None: as they
            are.
    """
    # In the order of memory, in which no layout needs a copy of the whole.
    axes = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    flat = tensor.detach().permute(axes).reshape(-1)
    looked_at = dtype if dtype is not None and flat.is_floating_point() else flat.dtype
    # Both of shape (), on the tensor's device: one wait for the device, not one a chunk.
    digest = torch.zeros((), dtype=torch.int64, device=flat.device)
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for chunk in flat.split(_CHUNK.get(flat.device.type, _CHUNK_ON_DEVICE)):
        chunk = chunk.to(looked_at).contiguous()
        mixed = chunk.view(_BITS[chunk.element_size()]).to(torch.int64, copy=True)
        mixed.mul_(_MULTIPLIER)
        mixed.bitwise_xor_(mixed >> 32)
        digest += mixed.sum()
        total += chunk.sum(dtype=torch.float64)
    return TensorSum(int(digest) % MODULUS, float(total), str(looked_at).removeprefix("torch."))


def observe_weights(
    weights: Iterator[tuple[str, torch.Tensor]],
    observed: MutableMapping[str, TensorSum],
    dtype: torch.dtype | None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass weights on unchanged, and note the fingerprint of each in ``observed``.

    Args:
        weights: name and full tensor of each weight, as a sender takes them.
        dtype: as for :func:`fingerprint_tensor`; the dtype that the rollout engine holds them in.
    """
    for name, weight in weights:
        observed[name] = fingerprint_tensor(weight, dtype)
        yield name, weight
