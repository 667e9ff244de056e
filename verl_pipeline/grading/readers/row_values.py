"""Values of rows, as files and exporters give them, read into exact built-in values.

One row reaches us as JSON text, as the ``repr`` of a Python value, as a struct of a parquet file,
as numpy arrays (pandas makes them of lists), or as one of these within text again.

Invariants:
* All of these give the same value, or the row is refused.
* Nothing is executed and nothing is lost: an object that has a key twice, or strings that Python
  would join (``['a' 'b']`` is how numpy prints two), are refused.
* Integers of any length are read and written; no setting of the interpreter is changed for it.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_pipeline.grading.readers.bad_row import BadRow

# Text within text: what an exporter that encodes each column makes of a column that is text.
_MAX_TEXT_LEVELS = 3
# Of a ``repr``: its syntax tree takes up to a hundred times as much memory.
_MAX_LITERAL_CHARACTERS = 32 << 20
# Python's int() and str() refuse more digits by default (sys.int_info).
_MAX_INT_DIGITS = 4300
_SCALARS = (bool, int, float, str, bytes)
_KINDS = {int: "an integer", str: "text", bytes: "bytes", list: "a list", dict: "an object"}
# Methods that return built-in values: pyarrow's scalars and tables, numpy's and pandas' arrays.
_CONVERSIONS = ("as_py", "to_pylist", "tolist")
# In a repr: strings, with what shows that another string follows, and integers too long for int().
_LITERAL_PARTS = re.compile(
    r"""(?:'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")"""
    rf"""(?P<joined>\s*[bBuUrR]{{0,2}}["'])?"""
    rf"""|(?<![\w.])(?P<digits>\d{{{_MAX_INT_DIGITS + 1},}})(?![\w.])""",
    re.DOTALL,
)

# Escapes that JSON has and Python reads otherwise: a slash, and a character as two surrogates.
_JSON_ESCAPES = re.compile(
    r"(?<!\\)(?:\\\\)*\\(?:/|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; integers may have any number of digits.

    Raises:
        BadRow: it is not JSON, not UTF-8, nested too deeply, or an object has a key twice.
    """
    text = decode_text(text).removeprefix("\ufeff")
    try:
        try:
            return json.loads(text, object_pairs_hook=_make_object)
        except (json.JSONDecodeError, BadRow):
            raise
        except ValueError:  # an integer has too many digits for int()
            return json.loads(text, object_pairs_hook=_make_object, parse_int=parse_integer)
    except json.JSONDecodeError as error:
        raise BadRow(f"not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRow("not valid JSON: nested too deeply") from error


def parse_text(text: str | bytes) -> Any:
    """Parse JSON, or else the ``repr`` of a Python value.

    Raises:
        BadRow: it is neither; the message says why it is not JSON.
    """
    text = decode_text(text).removeprefix("\ufeff")
    try:
        return parse_json(text)
    except BadRow as json_error:
        try:
            return _parse_literal(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise (error if isinstance(error, BadRow) else json_error) from error


def parse_container(value: Any, content: str) -> Any:
    """Return the list or dict that ``value`` is or, as text, stands for; tuples become lists.

    Members are as :func:`open_container` leaves them.

    Args:
        value: anything that a row may hold.
        content: what is expected, for the error, such as "a list of test cases".

    Raises:
        BadRow: it is something else.
    """
    value = open_container(value)
    for _ in range(_MAX_TEXT_LEVELS):
        if not isinstance(value, str | bytes):
            break
        if not value.strip():
            raise BadRow(f"expected {content}, found empty text")
        try:
            value = open_container(parse_text(value))
        except BadRow as error:
            raise BadRow(f"{error}; expected {content}") from error
    if not isinstance(value, list | dict):
        raise BadRow(f"expected {content}, found {describe_value(value)}")
    return value


def open_container(value: Any) -> Any:
    """Return a mapping as a dict and a sequence or array as a list, with members as they are.

    Members are converted where they are used: a row may have fields that no test needs.
    """
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    for name in _CONVERSIONS:
        if callable(convert := getattr(value, name, None)):
            value = convert()
            return value if isinstance(value, list | dict | str | bytes) else open_container(value)
    return list(value) if isinstance(value, Sequence) else value


def parse_list(value: Any, content: str) -> list[Any]:
    """Return the list that ``value`` is or, as text, stands for; BadRow if it is none."""
    value = parse_container(value, content)
    if not isinstance(value, list):
        raise BadRow(f"expected {content}, found an object with {', '.join(map(str, value))}")
    return value


def parse_object(value: Any, content: str) -> dict[str, Any]:
    """Return the object that ``value`` is or, as text, stands for; BadRow if it is none."""
    value = parse_container(value, content)
    if not isinstance(value, dict):
        raise BadRow(f"expected {content}, found {describe_value(value)}")
    return value


def read_text(value: Any, content: str) -> str:
    """Return a field that is text, or UTF-8 as bytes; BadRow if it is missing or no text."""
    value = make_plain(value)
    if not isinstance(value, str | bytes):
        found = "missing" if is_missing(value) else describe_value(value)
        raise BadRow(f"{content} is {found}; expected text")
    return decode_text(value)


def read_extra_info(value: Any) -> dict[str, Any]:
    """Return verl's ``extra_info``, which may be null or text; BadRow if it is something else."""
    if is_blank(value):
        return {}
    return parse_object(value, "extra_info as an object")


def decode_text(text: str | bytes) -> str:
    """Return text, of UTF-8 if it is bytes; BadRow if it is not UTF-8."""
    try:
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        byte = text[error.start]
        raise BadRow(f"not valid UTF-8: byte {byte:#04x} at position {error.start}") from error


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or the NaN that pandas writes instead."""
    return value is None or (isinstance(value, float) and value != value)


def is_blank(value: Any) -> bool:
    """Whether a field that may be left out is: missing, or text without any character."""
    return is_missing(value) or (isinstance(value, str | bytes) and not value.strip())


def describe_value(value: Any) -> str:
    """Return what a value is, in words of JSON, for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def make_plain(value: Any) -> Any:
    """Return ``value`` with everything in it as exact built-in types.

    Raises:
        BadRow: something has no built-in type that a test can use.
    """
    kind = type(value)
    if value is None or kind in _SCALARS:
        return value
    if isinstance(value, Mapping):
        return {make_plain(key): make_plain(item) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(map(make_plain, value))
    for name in _CONVERSIONS:
        if callable(convert := getattr(value, name, None)):
            return make_plain(convert())
    for base in _SCALARS:
        if isinstance(value, base):
            convert_scalar: Callable[[Any], Any] = base
            return convert_scalar(value)
    if isinstance(value, Sequence):
        return list(map(make_plain, value))
    raise BadRow(f"a value of type {kind.__module__}.{kind.__qualname__}")


def format_value(value: Any) -> str:
    """Return the text that :func:`parse_text` reads as ``value``: JSON if JSON can hold it exactly.

    Raises:
        BadRow: no text holds it exactly.
    """
    try:
        return json.dumps(value) if _is_json_value(value) else _write_literal(value)
    except ValueError:
        return _write_literal(value)


def parse_integer(text: str) -> int:
    """Return the integer of a decimal text of any length."""
    if len(text) <= _MAX_INT_DIGITS:
        return int(text)
    if text.startswith("-"):
        return -parse_integer(text[1:])
    # By halves, because int() takes time that grows with the square of the length.
    low_digits = len(text) // 2
    return parse_integer(text[:-low_digits]) * 10**low_digits + parse_integer(text[-low_digits:])


def shorten_integers(source: str) -> str:
    """Write the integers of Python code that are too long for its parser in hexadecimal digits."""
    return _LITERAL_PARTS.sub(
        lambda match: hex(parse_integer(match["digits"])) if match["digits"] else match[0], source
    )


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _item in pairs]
        raise BadRow(f"an object has the key {max(keys, key=keys.count)!r} twice")
    return value


def _parse_literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL_CHARACTERS:
        raise BadRow(f"Python text of more than {_MAX_LITERAL_CHARACTERS} characters")
    if _JSON_ESCAPES.search(text):
        raise ValueError("escapes of JSON")
    tree = ast.parse(_LITERAL_PARTS.sub(_check_literal_part, text).strip(), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if len(set(keys)) != len(keys):
                raise BadRow(f"a dict has the key {max(keys, key=keys.count)!r} twice")
    return make_plain(ast.literal_eval(tree))


def _check_literal_part(match: re.Match[str]) -> str:
    """Refuse joined strings; write long integers in a way that Python reads without a limit."""
    if match["joined"]:
        raise BadRow("two strings follow each other without a comma, as numpy prints its arrays")
    return hex(parse_integer(match["digits"])) if match["digits"] else match[0]


def _is_json_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json_value(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json_value, value))
    return value is None or type(value) in (bool, int, float, str)


def _write_literal(value: Any) -> str:
    """Write a Python literal; long integers as hexadecimal digits, which Python always reads."""
    if isinstance(value, dict):
        pairs = (f"{_write_literal(key)}: {_write_literal(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple | set) and value:
        start, end = {list: "[]", tuple: ("(", ",)"), set: "{}"}[type(value)]
        return f"{start}{', '.join(map(_write_literal, value))}{end}"
    if type(value) is int:
        return hex(value) if value.bit_length() > 64 else str(value)
    if isinstance(value, frozenset) or (isinstance(value, float) and not math.isfinite(value)):
        raise BadRow(f"no text holds {value!r} within a value that JSON cannot hold")
    return repr(value)
