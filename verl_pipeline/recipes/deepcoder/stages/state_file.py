"""What ``stages.json`` of a run holds, as types that it must have.

Invariant: what passes can be used, and written again.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes this one on Python 3.11

from verl_pipeline.evaluation.recorded_files import DamagedFileError, check_shape, read_record

STATE_VERSION = 1
_ADVICE = "restore the file, or choose another --output"


class _AttemptShape(TypedDict):
    number: PositiveInt
    resumed_from: NonNegativeInt
    exit_code: int | None


class _StageShape(TypedDict):
    first_step: NonNegativeInt
    start: NonNegativeInt
    batch: PositiveInt
    settings: dict[str, str]
    attempts: list[_AttemptShape]
    ended_at: NonNegativeInt | None
    why: str | None


class _StateShape(TypedDict):
    identity: dict[str, Any]
    stages: dict[str, _StageShape]


class _VersionShape(TypedDict):
    version: int


_VERSION, _STATE = TypeAdapter(_VersionShape), TypeAdapter(_StateShape)


def read_state_file(path: Path) -> dict[str, Any]:
    """Return the content of a state; of another version than ours, only the version is checked.

    Raises:
        InputError: what stands there cannot be read.
        DamagedFileError: it is not a state.
    """
    content = read_record(path, _ADVICE)
    check_shape(content, _VERSION, str(path), _ADVICE)
    if content["version"] == STATE_VERSION:
        check_shape(content, _STATE, str(path), _ADVICE)
        try:
            json.dumps(content["identity"], allow_nan=False)
        except ValueError as error:
            raise DamagedFileError(
                f"{path}: identity: a number that is not finite; {_ADVICE}"
            ) from error
    return content
