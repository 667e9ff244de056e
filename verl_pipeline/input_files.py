"""Input files that a user names: checked before anything is read from them.

Invariants:
* Only regular files are read: a pipe may wait for ever, a device may have no end.
* Nothing is guessed: a file in another encoding or format is refused with what it is.
"""

import io
import json
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from verl_pipeline.errors import UserError

# First bytes of what is often given in place of text. UTF-32 before UTF-16, whose mark it contains.
_SIGNATURES = {
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a parquet file: write its rows as JSON lines first",
    b"\xff\xfe\x00\x00": "UTF-32 text: save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text: save it as UTF-8",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
# The YAML reader takes minutes for more.
_SETTINGS_BYTES = 4 << 20


class InputError(UserError):
    """An input file cannot be read; the message names the file, what it is and what to do."""


def check_text_file(path: Path) -> None:
    """Check that ``path`` is a file that can be read, and that it starts as UTF-8 text may.

    Raises:
        InputError: it is missing, unreadable, no regular file, or in another format.
    """
    start = check_file(path)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            raise InputError(f"{_show(path)} is {kind}")


def check_json_lines(path: Path) -> None:
    """Check as :func:`check_text_file`, and that the file is not one JSON document.

    Raises:
        InputError: it is, or cannot be read.
    """
    check_text_file(path)
    with path.open("rb") as file:
        first_line = next((line.strip() for line in file if line.strip()), b"")
    # No line of a file of objects begins like this, unless it is broken.
    if not first_line.startswith(b"[") and first_line != b"{":
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    is_list = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    if is_list or first_line in (b"[", b"{"):
        raise InputError(
            f"{_show(path)} is one JSON {'list' if is_list else 'document'}; expected an object on "
            f"each line, as jq -c {'.[]' if is_list else '.'} writes it"
        )


def describe_damage(error: Exception) -> str:
    """Return what the system or pyarrow says of a file, without names of its own exceptions."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return re.sub(r"\b\w+Exception: ", "", reason)


def check_file(path: Path) -> bytes:
    """Check that ``path`` is a file that can be read; return its first bytes.

    Raises:
        InputError: it is missing, unreadable, or no regular file.
    """
    try:
        mode = path.stat().st_mode
        # Opening a pipe would wait for its writer.
        start = _read_start(path) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        raise InputError(f"{_show(path)}: no such file; correct the path") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{_show(path)} cannot be read: {reason}; correct the path or its permissions"
        ) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, terminal or device"
        raise InputError(f"{_show(path)} is {kind}; expected a file")
    return start


def read_config(path: Path) -> Any:
    """Return the settings of a YAML file, as OmegaConf reads them.

    Raises:
        InputError: as :func:`read_settings_file`; or the file holds a single value.
    """
    from omegaconf import OmegaConf

    def parse(text: str) -> Any:
        try:
            return OmegaConf.load(io.StringIO(text))
        except OSError as error:
            raise ValueError("expected settings by name, e.g. limit: 5") from error

    return read_settings_file(path, parse)


def read_settings_file(path: Path, parse: Callable[[str], Any], kind: str = "YAML") -> Any:
    """Return what ``parse`` makes of the text of a YAML file.

    Args:
        kind: of the file, for errors, if it is no YAML.

    Raises:
        InputError: the file cannot be read, or is not of its kind; the message has the line.
    """
    check_text_file(path)
    if path.stat().st_size > _SETTINGS_BYTES:
        raise InputError(f"{_show(path)}: larger than any settings ({_SETTINGS_BYTES >> 20} MiB)")
    try:
        return parse(path.read_bytes().decode("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{_show(path)}{line}: not valid {kind}: {error.problem}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{_show(path)}: not UTF-8 text; save it as UTF-8") from error
    except RecursionError as error:
        raise InputError(f"{_show(path)}: nested too deeply for {kind}") from error
    # A character, date or number that cannot be one; what a parser of settings refuses.
    except (yaml.YAMLError, ValueError) as error:
        name = _find_long_number(path.read_bytes())
        cause = f"{name}: a number of too many digits" if name else " ".join(str(error).split())
        raise InputError(f"{_show(path)}: not valid {kind}: {cause}") from error


def _find_long_number(text: bytes) -> str | None:
    """Return the field of a number with more digits than Python reads, or None."""
    try:
        parts = [("", yaml.compose(text, yaml.SafeLoader))]
    except (yaml.YAMLError, ValueError):
        return None
    while parts:
        name, node = parts.pop()
        if isinstance(node, yaml.MappingNode):
            parts += [(f"{name}.{key.value}".lstrip("."), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            parts += [(name, value) for value in node.value]
        elif isinstance(node, yaml.ScalarNode) and node.value.isdigit():
            if len(node.value) > sys.get_int_max_str_digits():
                return name
    return None


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(max(map(len, _SIGNATURES)))


def _show(path: Path) -> str:
    """Return a path as it is, or as Python writes it if a terminal could not show it."""
    return str(path) if str(path).isprintable() else repr(str(path))
