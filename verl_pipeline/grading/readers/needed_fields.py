"""The fields that each source needs, for the error about a row that lacks them.

Invariant: the readers decide what is read; a row that they read is not looked at here.
"""

import difflib
import itertools
from typing import Any

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pair_readers import TEST_FIELDS, TEST_GROUPS
from verl_pipeline.grading.readers.row_values import is_missing, parse_container

_COLUMNS = ("inputs", "outputs")
# By source: sets of fields, of which one has to be complete.
NEEDED_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "apps": (_COLUMNS, ("input_output",)),
    "code_contests": (TEST_GROUPS, _COLUMNS),
    "codeforces": (("official_tests",), _COLUMNS),
    "cruxeval": (("code", "input", "output"),),
    "humaneval": (("prompt", "test", "entry_point"),),
    "humanevalplus": (("prompt", "test", "entry_point"),),
    "kodcode": (("test",),),
    "leetcode": (("functional",),),
    "livecodebench": (("public_test_cases", "private_test_cases"), _COLUMNS),
    "mbpp": (("test_list",),),
    "mbppplus": (("test", "test_list"),),
    "primeintellect": (("verification_info",), ("test_cases",)),
    "taco": (_COLUMNS, ("input_output",)),
}
# What copies of the data sets call these fields.
_OTHER_NAMES = (
    *itertools.product(("inputs", "input"), ("outputs", "output")),
    *((name,) for name in TEST_FIELDS),
)
_HAS_OTHER_NAMES = {
    *("apps", "code_contests", "codeforces", "livecodebench", "primeintellect", "taco")
}


def describe_missing_fields(source: str, tests: Any) -> str | None:
    """Return what ``source`` needs and the row has instead, or None if no field is missing."""
    try:
        fields = parse_container(tests, "a row")
    except BadRow:
        return None
    if not isinstance(fields, dict):
        return None
    needed = NEEDED_FIELDS[source]
    present = {name for name in fields if not is_missing(fields[name])}
    accepted = (*needed, *_OTHER_NAMES) if source in _HAS_OTHER_NAMES else needed
    if any(present.issuperset(names) for names in accepted):
        return None
    needs = ", or ".join(map(list_names, needed))
    found = ", ".join(map(str, fields)) or "no field"
    hints = [
        f"; did you mean {name!r} instead of {near[0]!r}?"
        for name in needed[0]
        if name not in fields
        and (near := difflib.get_close_matches(name, [str(key) for key in fields], 1, 0.8))
    ]
    return f"source {source!r} needs {needs}; found {found}{''.join(hints[:1])}"


def list_names(names: tuple[str, ...]) -> str:
    """Return names as ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
