"""LiveCodeBench: public tests as JSON, private ones as JSON or as base64(zlib(pickle(JSON text))).

Invariant: unpickling downloaded data may produce a str only; anything else is refused before it is
constructed.
"""

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from verl_pipeline.grading.problem import LIVECODEBENCH_TIME_S, CallTest, Problem, StdinTest, Test
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pair_readers import parse_json
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

# Larger data is not a test file (a decompression bomb, say): the largest of release v6 unpacks to
# less than 300 MB.
MAX_UNPACKED_BYTES = 1 << 30


class _TextUnpickler(pickle.Unpickler):
    """Refuses every class and function that a pickle names, so that only built-in values remain."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the tests name {module}.{name}; only text is allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the tests refer to an object outside of the pickle")


def decode_private_tests(text: str) -> list[dict]:
    """Decode the private tests.

    Raises:
        BadRow: the text is neither JSON nor the packed form, or it unpickles to anything but text.
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        unpacker = zlib.decompressobj()
        payload = unpacker.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED_BYTES)
        if unpacker.unconsumed_tail:
            raise BadRow(f"private tests of more than {MAX_UNPACKED_BYTES} bytes")
        unpickled = _TextUnpickler(io.BytesIO(payload)).load()
        if type(unpickled) is not str:
            raise BadRow(f"private tests hold a {type(unpickled).__name__}, not text")
        return json.loads(unpickled)
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise BadRow(f"private tests cannot be decoded: {error}") from error


def read_livecodebench(
    row: Any, *, name: str, source: str = "livecodebench", **settings: Any
) -> Problem:
    """Read a row of LiveCodeBench, or its list of tests as rLLM stores it.

    In rLLM's form, ``metadata`` is in each test.
    """
    if isinstance(row, Mapping):
        public = parse_json(row.get("public_test_cases") or "[]")
        tests = [*public, *decode_private_tests(row.get("private_test_cases") or "[]")]
        settings.setdefault("public", len(public))
        metadata = parse_json(row.get("metadata") or "{}")
    else:
        tests, metadata = parse_json(row), {}
    if not isinstance(tests, list) or not tests:
        raise BadRow(f"{source}/{name}: no tests")
    settings.setdefault("time_s", LIVECODEBENCH_TIME_S)
    settings.setdefault("prelude", IMPORTS_PRELUDE)
    kinds = {test.get("testtype") for test in tests}
    if kinds <= {"stdin", "stdin_stdout"}:
        stdin_tests: tuple[Test, ...] = tuple(
            StdinTest(test["input"], test["output"]) for test in tests
        )
        return Problem(name, source, stdin_tests, **settings)
    if kinds != {"functional"}:
        raise BadRow(f"{source}/{name}: test types {sorted(map(str, kinds))}")
    function = metadata.get("func_name") or (tests[0].get("metadata") or {}).get("func_name")
    if not function:
        raise BadRow(f"{source}/{name}: functional tests without metadata.func_name")
    calls = tuple(
        CallTest(_parse_json_lines(test["input"]), parse_json(test["output"])) for test in tests
    )
    return Problem(name, source, calls, entry_point=function, **settings)


def _parse_json_lines(text: str) -> tuple[Any, ...]:
    return tuple(parse_json(line) for line in text.split("\n") if line.strip())
