"""What waits for a place past the barrier, and which versions it may have.

Invariant: what waits begins in the order of the batches, a validation first, so the first one that
waits decides whether a replica's version will do.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.in_flight import Lives, count_over, to_microseconds
from verl_pipeline.telemetry.records import Header, Pool
from verl_pipeline.telemetry.run_folder import Run

# Before the first version, and where nothing waits.
NONE = -1


@dataclass(frozen=True)
class Versions:
    """Spans that end with a version; int64 us and int64, [spans], by their ends."""

    starts: np.ndarray
    ends: np.ndarray
    versions: np.ndarray

    @classmethod
    def empty(cls) -> "Versions":
        return cls(*(np.zeros(0, np.int64) for _ in range(3)))

    def find_at(self, moments: np.ndarray) -> np.ndarray:
        """The version at each moment."""
        place = np.searchsorted(self.ends, moments, side="right")
        return np.concatenate([[NONE], self.versions])[place]


def list_versions(run: Run, origin: float, last: int, pool: Pool, name: str) -> dict[str, Versions]:
    """By lane, the spans of a name that tell their version."""
    spans = run.spans.filter((pc.field("pool") == str(pool)) & (pc.field("name") == name))
    if pool == Pool.TRAINER:
        spans = spans.filter(pc.field("lane") == "driver")
    versions = [read_version(text) for text in spans["detail"].to_pylist()]
    is_known = np.array([version is not None for version in versions], bool)
    spans = spans.filter(pa.array(is_known))
    numbers = np.array([version for version in versions if version is not None], np.int64)
    times = {
        end: np.clip(to_microseconds(spans[end].to_numpy(), origin), 0, last)
        for end in ("start", "end")
    }
    lanes = np.array(spans["lane"].to_pylist(), dtype=object)
    order = np.argsort(times["end"], kind="stable")
    return {
        str(lane): Versions(*(values[order][lanes[order] == lane] for values in columns))
        for columns in [(times["start"], times["end"], numbers)]
        for lane in dict.fromkeys(lanes)
    }


def read_version(detail: str | None) -> int | None:
    """The version in a span's ``detail``; None if there is none."""
    values: Any = json.loads(detail or "{}")
    version = values.get("version") if isinstance(values, dict) else None
    is_version = type(version) is int and 0 <= version < 1 << 40
    return version if is_version else None


@dataclass(frozen=True)
class Demand:
    """What waits, and what may be loaded, between ``edges``; int64 [parts] each.

    Attributes:
        needed: the oldest version that the first one that waits may have; :data:`NONE`: none
            waits.
        published: the newest version that can be loaded.
    """

    edges: np.ndarray
    needed: np.ndarray
    published: np.ndarray


def find_demand(header: Header, lives: Lives, published: Versions, first: int, last: int) -> Demand:
    """Return what waits when.

    Args:
        published: the trainer's publications; ``first`` is the version before them, which the
            replicas load while the run starts.
        last: the last edge.
    """
    training = ~lives.is_validation
    asked, begun, keys = lives.asked, lives.starts, lives.keys
    queued = np.flatnonzero(training & (begun > asked) & (keys >= 0))
    batches, places = np.unique(keys[queued], return_inverse=True)
    firsts, ends = np.full(len(batches), last), np.zeros(len(batches), np.int64)
    np.minimum.at(firsts, places, asked[queued])
    np.maximum.at(ends, places, begun[queued])
    tests = lives.is_validation & (begun > asked)
    edges = np.unique(
        np.concatenate([firsts, ends, asked[tests], begun[tests], published.ends, [0, last]])
    )
    newest = np.maximum(published.find_at(edges[:-1]), first)
    needed = np.full(len(edges) - 1, NONE)
    # Of the batches that wait at a moment the oldest counts, so it is painted last.
    for batch, first, end in list(zip(batches, firsts, ends, strict=True))[::-1]:
        part = slice(*np.searchsorted(edges, np.array([first, end])))
        needed[part] = max(int(batch) - 1 - (header.staleness or 0), 0)
    # A validation waits for the newest weights, and before all else.
    validates = count_over(edges, asked[tests], begun[tests]) > 0
    needed[validates] = np.maximum(newest[validates], 0)
    return Demand(edges, needed, newest)
