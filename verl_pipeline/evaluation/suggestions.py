"""Finds the name that a misspelt one was meant to be."""

import difflib
from collections.abc import Iterable


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean X? `` for the known name nearest to ``name``, or nothing.

    A dotted name may also lack its section: ``temperature`` is near ``sampling.temperature``.
    """
    by_form = {form: full for full in known for form in (full.rpartition(".")[2], full)}
    similar = difflib.get_close_matches(name, by_form, 1)
    return f"did you mean {by_form[similar[0]]}? " if similar else ""
