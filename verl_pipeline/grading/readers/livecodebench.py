"""LiveCodeBench: public tests as JSON, private ones as JSON or as base64(zlib(pickle(JSON text))).

Invariant: the pickle of downloaded data may make one thing only, a str; anything else is refused
before it is made.
"""

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from verl_pipeline.grading.problem import LIVECODEBENCH_TIME_S, CallTest, Problem, StdinTest, Test
from verl_pipeline.grading.readers.errors import BadRow
from verl_pipeline.grading.readers.pairs import from_json
from verl_pipeline.sandbox.prelude import IMPORTS

# Unpacked size at which a test file is no test file any more; the largest of release v6 is below
# 300 MB.
MOST_BYTES = 1 << 30


class _StrUnpickler(pickle.Unpickler):
    """Refuses every class and every function a pickle names; what is left are built-in values."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the tests name {module}.{name}; only text is allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the tests refer to something outside")


def decode_private(text: str) -> list[dict]:
    """The private tests.

    Raises:
        BadRow: neither JSON nor the packed form, or more than text in it.
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        unpacker = zlib.decompressobj()
        payload = unpacker.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        if unpacker.unconsumed_tail:
            raise BadRow(f"private tests of more than {MOST_BYTES} bytes")
        inner = _StrUnpickler(io.BytesIO(payload)).load()
        if type(inner) is not str:
            raise BadRow(f"private tests hold a {type(inner).__name__}, not text")
        return json.loads(inner)
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise BadRow(f"private tests cannot be decoded: {error}") from error


def read_livecodebench(
    row: Any, *, name: str, source: str = "livecodebench", **settings: Any
) -> Problem:
    """A row of LiveCodeBench, or its list of tests as rLLM stores it (``metadata`` in each test)."""
    if isinstance(row, Mapping):
        public = from_json(row.get("public_test_cases") or "[]")
        tests = [*public, *decode_private(row.get("private_test_cases") or "[]")]
        settings.setdefault("public", len(public))
        metadata = from_json(row.get("metadata") or "{}")
    else:
        tests, metadata = from_json(row), {}
    if not isinstance(tests, list) or not tests:
        raise BadRow(f"{source}/{name}: no tests")
    settings.setdefault("time_s", LIVECODEBENCH_TIME_S)
    settings.setdefault("prelude", IMPORTS)
    kinds = {test.get("testtype") for test in tests}
    if kinds <= {"stdin", "stdin_stdout"}:
        stdin: tuple[Test, ...] = tuple(StdinTest(test["input"], test["output"]) for test in tests)
        return Problem(name, source, stdin, **settings)
    if kinds != {"functional"}:
        raise BadRow(f"{source}/{name}: test types {sorted(map(str, kinds))}")
    function = metadata.get("func_name") or (tests[0].get("metadata") or {}).get("func_name")
    if not function:
        raise BadRow(f"{source}/{name}: functional tests without metadata.func_name")
    calls = tuple(CallTest(_json_lines(test["input"]), from_json(test["output"])) for test in tests)
    return Problem(name, source, calls, entry_point=function, **settings)


def _json_lines(text: str) -> tuple[Any, ...]:
    return tuple(from_json(line) for line in text.split("\n") if line.strip())
