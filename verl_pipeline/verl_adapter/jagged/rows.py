"""The tokens of n responses as flat tensors, in blocks of rows that fit a processor's cache.

Invariant: a row without a token that counts stays a row: verl's means over rows include it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Tokens of a block: 1 MiB of float32. Temporaries of whole batches would be written to memory that
# the system has to map first, several times the cost of the arithmetic.
BLOCK_TOKENS = 1 << 18


@dataclass(frozen=True)
class TokenRows:
    """Which tokens of n responses count.

    Attributes:
        lengths: int64, shape (n,); response lengths, their sum is T.
        mask: bool, shape (T,); None if every token counts.
    """

    lengths: torch.Tensor
    mask: torch.Tensor | None = None

    @property
    def counts(self) -> torch.Tensor:
        """Tokens that count, by row; int64, shape (n,)."""
        if self.mask is None:
            return self.lengths
        return sum_rows(self.mask.long(), self.lengths)

    def select(self, values: torch.Tensor) -> torch.Tensor:
        """Of ``values`` (shape (T,)) those that count, shape (C,)."""
        return values if self.mask is None else values[self.mask]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`select`, with zeros where a token does not count; shape (T,)."""
        if self.mask is None:
            return values
        full = values.new_zeros(self.mask.shape)
        full[self.mask] = values
        return full

    def keep(self, kept: torch.Tensor) -> "TokenRows":
        """The same rows with only the tokens that count and are ``kept`` (bool, shape (C,))."""
        return TokenRows(self.lengths, self.spread(kept))


def make_nested(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Jagged tensor of rows of ``lengths`` (int64, (n,)) over ``values`` (shape (T,))."""
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return torch.nested.nested_tensor_from_jagged(values, offsets)


def cut_responses(sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What a model computed for the response tokens; shape (T,).

    Args:
        sequences: jagged, rows of prompt and response; position i belongs to token i + 1.
        lengths: int64, shape (n,); response lengths, each below its row's.
    """
    values, ends = sequences.values(), sequences.offsets()[1:].tolist()
    pieces = [
        values[end - length - 1 : end - 1]
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]
    return torch.cat(pieces)


def sum_rows(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Sum of each row of ``counts`` (int64, (n,)) values, as precise as torch's; shape (n,)."""
    return torch.stack([row.sum() for row in values.split(counts.tolist())])


def expand_rows(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Each of ``values`` (shape (n,)) repeated ``counts`` (int64, (n,)) times; shape (C,)."""
    expanded = values.new_empty(int(counts.sum()))
    for value, row in zip(values.tolist(), expanded.split(counts.tolist()), strict=True):
        row.fill_(value)
    return expanded


def split_blocks(counts: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and tokens of each block: whole rows, at most :data:`BLOCK_TOKENS` unless a row is
    longer.
    """
    first_row = start = end = 0
    for row, count in enumerate(counts.tolist()):
        if end > start and end + count - start > BLOCK_TOKENS:
            yield slice(first_row, row), slice(start, end)
            first_row, start = row, end
        end += count
    if len(counts):
        yield slice(first_row, len(counts)), slice(start, end)
