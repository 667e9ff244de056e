"""The tokens of n responses as flat tensors, in blocks of rows that fit a processor's cache.

Invariants:
* A row without a token that counts stays a row: verl's means over rows include it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch

Result = TypeVar("Result")

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

    @cached_property
    def counts(self) -> torch.Tensor:
        """Tokens that count, by row; int64, shape (n,)."""
        return self.lengths if self.mask is None else sum_rows(self.mask, self.lengths)

    def select(self, values: torch.Tensor) -> torch.Tensor:
        """Of ``values`` (shape (T,)) those that count, shape (C,)."""
        mask = self.mask
        if mask is None:
            return values

        def select_block(_rows: slice, tokens: slice) -> torch.Tensor:
            # Most blocks have no gap: a row of verl's padding is one token.
            counted = mask[tokens]
            return values[tokens] if counted.all() else values[tokens].masked_select(counted)

        return torch.cat(list(map_blocks(select_block, self.lengths)))

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`select`, with zeros where a token does not count; shape (T,)."""
        mask = self.mask
        if mask is None:
            return values
        ends = self.counts.cumsum(0).tolist()

        def spread_block(rows: slice, tokens: slice) -> torch.Tensor:
            start = ends[rows.start - 1] if rows.start else 0
            source = values[start : ends[rows.stop - 1]]
            if len(source) == tokens.stop - tokens.start:
                return source
            full = values.new_zeros(tokens.stop - tokens.start)
            return full.masked_scatter_(mask[tokens], source)

        return torch.cat(list(map_blocks(spread_block, self.lengths)))

    def keep(self, kept: torch.Tensor) -> "TokenRows":
        """The same rows with only the tokens that count and are ``kept`` (bool, shape (C,))."""
        return TokenRows(self.lengths, self.spread(kept))


def make_nested(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Jagged tensor of rows of ``lengths`` (int64, (n,)) over ``values`` (shape (T,)).

    Without the longest length torch would pad it to T.
    """
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return torch.nested.nested_tensor_from_jagged(values, offsets, max_seqlen=int(lengths.max()))


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


def max_rows(values: torch.Tensor, counts: torch.Tensor, *, empty: float = 0.0) -> torch.Tensor:
    """Largest of each row of ``counts`` (int64, (n,)) values, ``empty`` for a row of none; (n,)."""
    rows = values.split(counts.tolist())
    return torch.stack([row.max() if len(row) else values.new_tensor(empty) for row in rows])


def expand_rows(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Each of ``values`` (shape (n,)) repeated ``counts`` (int64, (n,)) times; shape (C,)."""
    expanded = values.new_empty(int(counts.sum()))
    for value, row in zip(values.tolist(), expanded.split(counts.tolist()), strict=True):
        row.fill_(value)
    return expanded


def split_blocks(counts: torch.Tensor, tokens: int = BLOCK_TOKENS) -> Iterator[tuple[slice, slice]]:
    """Rows and tokens of each block: whole rows, at most ``tokens`` unless a row is longer."""
    first_row = start = end = 0
    for row, count in enumerate(counts.tolist()):
        if end > start and end + count - start > tokens:
            yield slice(first_row, row), slice(start, end)
            first_row, start = row, end
        end += count
    if len(counts):
        yield slice(first_row, len(counts)), slice(start, end)


def map_blocks(work: Callable[[slice, slice], Result], counts: torch.Tensor) -> Iterator[Result]:
    """``work`` of each of :func:`split_blocks`, in their order."""
    return (work(rows, tokens) for rows, tokens in split_blocks(counts))


def join_columns(blocks: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Columns of all rows from those of blocks of rows, at least one, in their order."""
    parts = list(blocks)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
