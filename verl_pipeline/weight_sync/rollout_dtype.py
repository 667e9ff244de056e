"""The dtype that weights travel in: the rollout's, where the trainer holds wider ones.

Invariants:
* A tensor is only ever narrowed: integers, and floats that are as narrow already (fp8, packed
  quantised weights), travel as they are.
* Vectors travel as they are. They are a negligible part of the bytes, and some of them the engines
  hold in fp32 (DeepSeek's router bias, Mamba's decay).
* All ranks of the trainer cast alike: those that relay or only gather compute the same buckets.
"""

from collections.abc import Iterator

import torch

Weight = tuple[str, torch.Tensor]


def parse_dtype(name: str | None) -> torch.dtype | None:
    """The floating-point dtype of a torch name ("bfloat16"); None for none.

    Raises:
        ValueError: torch has no such floating-point dtype.
    """
    if name is None:
        return None
    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"rollout_dtype={name}: no floating-point dtype of torch, as bfloat16 is")
    return dtype


def narrow_weight(weight: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """``weight`` in ``dtype`` if that is narrower and it is a matrix or more."""
    if dtype is None or weight.dim() < 2 or not weight.is_floating_point():
        return weight
    return weight.to(dtype) if weight.dtype.itemsize > dtype.itemsize else weight


class NarrowedWeights:
    """The weights of one sync in ``dtype``, one by one as they are asked for, counted.

    Attributes:
        nbytes: bytes so far.
        tensors: tensors so far.
    """

    def __init__(self, weights: Iterator[Weight], dtype: torch.dtype | None):
        self._weights = weights
        self._dtype = dtype
        self.nbytes = 0
        self.tensors = 0

    def __iter__(self) -> Iterator[Weight]:
        for name, weight in self._weights:
            narrowed = narrow_weight(weight, self._dtype)
            self.nbytes += narrowed.nbytes
            self.tensors += 1
            yield name, narrowed
