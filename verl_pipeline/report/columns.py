"""Columns of a run's tables as numpy arrays.

Invariant: null becomes NaN in numbers and None in texts, never a number or a text.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Categories:
    """A column of texts, as numbers.

    Attributes:
        names: the texts that occur.
        codes: place in ``names`` of each row, -1 for null; int32 (n,).
    """

    names: list[str]
    codes: np.ndarray

    def select(self, name: str) -> np.ndarray:
        """Return where the column is ``name``: bool (n,)."""
        if name not in self.names:
            return np.zeros(len(self.codes), bool)
        return self.codes == self.names.index(name)


def read_numbers(table: pa.Table, name: str) -> np.ndarray:
    """Return a column as float64 (n,)."""
    column = table[name]
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    return pc.cast(column, pa.float64()).to_numpy()


def read_flags(table: pa.Table, name: str) -> np.ndarray:
    """Return a column as bool (n,); null is False."""
    column = table[name]
    if pa.types.is_null(column.type):
        return np.zeros(len(column), bool)
    return pc.fill_null(column, False).to_numpy().astype(bool)


def read_categories(table: pa.Table, name: str) -> Categories:
    """Return a column of texts."""
    column = table[name]
    if len(column) == 0 or pa.types.is_null(column.type):
        return Categories([], np.full(len(column), -1, np.int32))
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    codes = pc.fill_null(pc.cast(whole.indices, pa.int32()), -1).to_numpy()
    return Categories([str(text) for text in whole.dictionary.to_pylist()], codes)
