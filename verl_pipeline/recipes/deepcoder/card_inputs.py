"""What a model card uses of the files of a run and of its data, as types that they must have."""

from typing import Any

from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes this one on Python 3.11


class _Stage(TypedDict):
    first_step: int
    settings: dict[str, str]
    ended_at: int | None
    why: str | None


class _State(TypedDict):
    identity: dict[str, Any]
    stages: dict[str, _Stage]


class _Metrics(TypedDict):
    data: dict[str, FiniteFloat]


class _StageCounts(TypedDict):
    went: int


class _Source(TypedDict):
    rows: int
    left: int
    stages: dict[str, _StageCounts]


class _Report(TypedDict):
    sources: dict[str, _Source]
    stages: list[str]
    evaluations: dict[str, Any]
    warnings: list[str]


STATE, METRICS, REPORT = TypeAdapter(_State), TypeAdapter(_Metrics), TypeAdapter(_Report)
