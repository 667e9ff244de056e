"""LiveCodeBench: public tests as JSON, private ones as JSON or as base64(zlib(pickle(JSON text))).

Invariants:
* Unpickling downloaded data may produce a str only; anything else is refused before it is
  constructed.
* A row without its private tests is refused: its public tests are the examples of the statement. An
  empty list says that there are none.
"""

import base64
import io
import pickle
import zlib
from typing import Any

from verl_pipeline.grading.problem import LIVECODEBENCH_TIME_S, CallTest, Problem
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.case_values import (
    Case,
    make_stdin_tests,
    read_arguments,
    read_cases,
)
from verl_pipeline.grading.readers.row_values import (
    decode_text,
    is_blank,
    make_plain,
    parse_container,
    parse_list,
    parse_object,
    parse_text,
)
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

# Larger data is not a test file (a decompression bomb, say): the largest of release v6 unpacks to
# less than 300 MB.
MAX_UNPACKED_BYTES = 1 << 30
# What the unpickler raises for a damaged pickle, beside its own error.
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)
# Fields of a row that hold its tests.
_PUBLIC, _PRIVATE = "public_test_cases", "private_test_cases"


class _TextUnpickler(pickle.Unpickler):
    """Refuses every class and function that a pickle names, so that only built-in values remain."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the tests name {module}.{name}; only text is allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the tests refer to an object outside of the pickle")


def decode_private_tests(value: Any) -> Any:
    """Decode the private tests, which may be packed, to what their JSON says.

    Raises:
        BadRow: they are neither JSON nor the packed form, or they unpickle to anything but text.
    """
    value = make_plain(value)
    if not isinstance(value, str | bytes):
        return value
    text = decode_text(value).lstrip("\ufeff \t\r\n")
    if text[:1] not in tuple("[{\"'"):  # what JSON and a repr start with, and base64 does not
        return _unpack_tests(text)
    decoded = parse_text(text)
    # Text within text may be the packed form.
    return decode_private_tests(decoded) if isinstance(decoded, str) else decoded


def read_row_cases(row: dict[str, Any]) -> tuple[list[Case], list[Case]]:
    """Read the public and the private tests of a row.

    Raises:
        BadRow: the row lacks one of the two lists.
    """
    groups: list[list[Case]] = []
    for field, decode in ((_PUBLIC, make_plain), (_PRIVATE, decode_private_tests)):
        if is_blank(row.get(field)):
            raise BadRow(f"no {field}; a row without such tests has an empty list")
        try:
            groups.append(read_cases(decode(row[field])))
        except BadRow as error:
            raise BadRow(f"{field}: {error}") from error
    public, private = groups
    return public, private


def read_function(row: dict[str, Any]) -> str | None:
    """Return the function that the row's ``metadata`` names."""
    return _get_function(row.get("metadata"))


def read_livecodebench(
    row: Any, *, name: str, source: str = "livecodebench", **settings: Any
) -> Problem:
    """Read a row of LiveCodeBench, or its list of tests as rLLM stores it.

    In rLLM's form, ``metadata`` is in each test.
    """
    value = parse_container(row, "a row of LiveCodeBench or a list of its tests")
    function = None
    if isinstance(value, dict) and value.keys() & {_PUBLIC, _PRIVATE}:
        public, private = read_row_cases(value)
        settings.setdefault("public", len(public))
        cases, function = [*public, *private], read_function(value)
    else:
        cases = read_cases(value)
    if not cases:
        raise BadRow("no tests")
    settings.setdefault("time_s", LIVECODEBENCH_TIME_S)
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    kinds = {case.kind for case in cases}
    if kinds <= {"stdin", "stdin_stdout"}:
        return Problem(name, source, make_stdin_tests(cases), **settings)
    if kinds != {"functional"}:
        found = ", ".join(sorted(kind or "none" for kind in kinds))
        raise BadRow(f"testtype: expected stdin or functional for all tests, found {found}")
    functions = {_get_function(case.metadata) or function for case in cases}
    if len(functions) != 1 or not (function := functions.pop()):
        raise BadRow("functional tests need one metadata.func_name")
    return Problem(name, source, _make_calls(cases), entry_point=function, **settings)


def _unpack_tests(text: str) -> Any:
    try:
        unpacker = zlib.decompressobj()
        payload = unpacker.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED_BYTES)
        if unpacker.unconsumed_tail:
            raise BadRow(f"more than {MAX_UNPACKED_BYTES} bytes")
        if not unpacker.eof:
            raise BadRow("the packed form is cut short")
        unpickled = _TextUnpickler(io.BytesIO(payload)).load()
        if type(unpickled) is not str:
            raise BadRow(f"they hold a {type(unpickled).__name__}, not text")
        return parse_list(unpickled, "a list of tests")
    except (zlib.error, pickle.UnpicklingError, EOFError, *_DAMAGED) as error:
        raise BadRow(f"private tests cannot be decoded: {error}") from error


def _make_calls(cases: list[Case]) -> tuple[CallTest, ...]:
    """Make call tests; an output is a value, or JSON text."""
    return tuple(
        CallTest(
            read_arguments(case.input, number),
            parse_text(case.output) if isinstance(case.output, str) else case.output,
        )
        for number, case in enumerate(cases, 1)
    )


def _get_function(metadata: Any) -> str | None:
    if is_blank(metadata):
        return None
    name = parse_object(metadata, "metadata as an object").get("func_name")
    return name.strip() or None if isinstance(name, str) else None
