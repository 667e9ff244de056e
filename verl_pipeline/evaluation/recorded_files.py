"""Reads JSON files that a command has written for other commands, and that may be damaged since.

Invariants:
* Only what a reader uses is checked, so that files with more fields are read as well.
* A refusal names file, line, field, what was found and what was expected, in one line.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from verl_pipeline.errors import UserError
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.row_values import describe_value, parse_json
from verl_pipeline.input_files import check_text_file
from verl_pipeline.outputs.files import is_unfinished_record

REMOVE_LINE = "remove the line, and the next call recreates it"
# Python's str() refuses more by default (sys.int_info).
_MAX_DIGITS = 4300
_HUGE_INTEGER = re.compile(rb"\d{%d}" % _MAX_DIGITS)


class DamagedFileError(UserError):
    """A file is not as its command has written it."""


def read_record(path: Path, advice: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: there is no such file, or it cannot be read.
        DamagedFileError: it is not JSON; the message ends with ``advice``.
    """
    check_text_file(path)
    try:
        text = path.read_bytes()
        content = parse_json(text)
    except BadRow as error:
        raise DamagedFileError(f"{path}: {error}; {advice}") from error
    # The search by field is slow: only where there are so many digits in a row.
    if _HUGE_INTEGER.search(text) and (name := _find_huge_integer(content)):
        raise DamagedFileError(f"{path}: {name}: an integer of too many digits; {advice}")
    return content


def read_records(
    path: Path, shape: TypeAdapter | None = None, advice: str = REMOVE_LINE
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file; nothing if there is no file.

    An unfinished last record is skipped.

    Args:
        shape: that each object must have.

    Raises:
        InputError: the file cannot be read.
        DamagedFileError: another line is not such an object; the message has its number.
    """
    if not os.path.exists(path):
        return
    check_text_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = parse_json(line)
            except BadRow as error:
                if is_unfinished_record(line):
                    return
                raise DamagedFileError(f"{path}:{number}: {error}; {advice}") from error
            if not isinstance(row, dict):
                raise DamagedFileError(
                    f"{path}:{number}: expected an object, found {describe_value(row)}; {advice}"
                )
            if shape is not None:
                check_shape(row, shape, f"{path}:{number}", advice)
            yield row


def check_shape(content: Any, shape: TypeAdapter, place: str, advice: str) -> None:
    """Refuse content that lacks a field of ``shape``, or has another type there.

    Raises:
        DamagedFileError: the message begins with ``place``, then names the first such field.
    """
    try:
        shape.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(part for part in map(str, first["loc"]) if part != "[key]")
        name = f"{field}: " if field else ""
        if first["type"] == "missing":
            raise DamagedFileError(f"{place}: {name}is missing; {advice}") from error
        expected = first["msg"].replace("Input should be", "must be")
        found = describe_value(first["input"])
        raise DamagedFileError(f"{place}: {name}{expected}, found {found}; {advice}") from error


def _find_huge_integer(content: Any) -> str | None:
    """Return the field of an integer that Python does not write, or None."""
    parts = [("", content)]
    while parts:
        name, part = parts.pop()
        if isinstance(part, int) and abs(part) >= 10**_MAX_DIGITS:
            return name
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(part, dict | list):
            items = part.items() if isinstance(part, dict) else enumerate(part)
        parts += [(f"{name}.{key}".lstrip("."), item) for key, item in items]
    return None
