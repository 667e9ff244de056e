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
    return [
        value if index in kept else pytest.param(value, marks=pytest.mark.slow)
        for index, value in enumerate(values)
    ]
