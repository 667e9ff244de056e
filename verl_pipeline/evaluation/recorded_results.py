"""What readers of ``results.json`` and ``checkpoints.json`` use, as types that a file must have."""

from typing import (
    Any,
    NotRequired,  # pydantic takes this one on Python 3.11
)

from pydantic import FiniteFloat, PositiveInt, TypeAdapter
from typing_extensions import TypedDict


class _Interval(TypedDict):
    value: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None


class _Caveat(TypedDict):
    kind: str
    text: str
    label: str


class _Published(TypedDict):
    model: str
    value: FiniteFloat
    measure: str
    source: str
    note: str


class _Data(TypedDict):
    problems: int
    sha256: str
    origin: str
    notes: NotRequired[list[str]]


class _Counts(TypedDict):
    samples: int
    truncated: int


class _Sampling(TypedDict):
    n: PositiveInt
    temperature: FiniteFloat
    top_p: FiniteFloat
    max_tokens: int


_Task = TypedDict(
    "_Task",
    {
        "task": str,
        "title": str,
        "data": _Data,
        "counts": _Counts,
        "sampling": _Sampling,
        "pass@1": _Interval | None,
        "mean_reward": NotRequired[_Interval | None],
        "published": list[_Published],
        "options": dict[str, Any],
    },
)


class _TaskWithCaveats(_Task):
    caveats: list[_Caveat]


class _Model(TypedDict):
    name: str
    weights: str | None


class _OldResults(TypedDict):
    model: _Model
    engine: dict[str, Any]
    tasks: list[_Task]
    warnings: NotRequired[list[str]]


class _Results(TypedDict):
    model: _Model
    engine: dict[str, Any]
    tasks: list[_TaskWithCaveats]


_CheckpointTask = TypedDict(
    "_CheckpointTask",
    {
        "caveats": NotRequired[list[_Caveat]],
        "pass@1": _Interval | None,
        "mean_reward": NotRequired[_Interval | None],
        "samples": int,
        "failed": int,
        "truncated": int,
        "mean_tokens": FiniteFloat,
    },
)


class _Checkpoint(TypedDict):
    step: int
    tasks: dict[str, _CheckpointTask]
    warnings: NotRequired[list[str]]


class _Version(TypedDict):
    schema: int


VERSION = TypeAdapter(_Version)
RESULTS = TypeAdapter(_Results)
OLD_RESULTS = TypeAdapter(_OldResults)
CHECKPOINTS = TypeAdapter(list[_Checkpoint])
