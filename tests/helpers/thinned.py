"""Cases of one kind, most of which only `make test-all` runs."""

from collections.abc import Iterable

import pytest


def thin_out(cases: Iterable, keep: int) -> list:
    """``cases`` for ``parametrize``: evenly spread ones stay in `make test`, the rest are slow.

    Args:
        keep: how many stay.
    """
    values = list(cases)
    kept = {round(index * (len(values) - 1) / max(keep - 1, 1)) for index in range(keep)}
    return [value if index in kept else _mark_slow(value) for index, value in enumerate(values)]


def thin_out_rows(rows: Iterable[tuple], keep: int) -> list:
    """As :func:`thin_out`, for a test with several parameters: a tuple has one of each."""
    return thin_out(
        [row if isinstance(row, pytest.ParameterSet) else pytest.param(*row) for row in rows], keep
    )


def _mark_slow(value: object) -> object:
    if isinstance(value, pytest.ParameterSet):
        return value._replace(marks=[*value.marks, pytest.mark.slow])
    return pytest.param(value, marks=pytest.mark.slow)
