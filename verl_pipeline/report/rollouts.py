"""Packs the trajectories that the page can show, one chunk a step.

A chunk is gzip of JSON, in base64: columns of the step's trajectories, and their texts. The page
unpacks a chunk when its step is opened, and all of them for a search.

Invariants:
* At most :data:`MAX_ROWS` trajectories and :data:`MAX_PACKED` bytes a page, shared by its runs; of
  a text at most :data:`MAX_CHARACTERS` characters, from both ends. The notes say what is left out
  and where it is.
* Of a step with more trajectories than its part, those with a text come first, then the longest,
  then the others at even distances.
"""

import base64
import gzip
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from verl_pipeline.report.thinning import pick_evenly
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.records import Text
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.span_text import read_spans

MAX_ROWS = 60_000
MAX_PACKED = 6_000_000
MAX_CHARACTERS = 12_000
# Texts that are looked at, over all steps; a run that wrote more is read to here.
MAX_TEXTS = 50_000
LONGEST = 8
_NUMBERS = (
    "session",
    "prompt_tokens",
    "response_tokens",
    "limit",
    "first_version",
    "last_version",
)


@dataclass(frozen=True)
class Chunk:
    """The trajectories of one step.

    Attributes:
        step: None for those of no step yet.
        rows: number of them.
        packed: see the module.
    """

    step: int | None
    rows: int
    packed: str


@dataclass
class Rollouts:
    """What the viewer has of a run.

    Attributes:
        picked: places in :class:`TrajectoryRows` of the trajectories that can be opened, sorted.
    """

    picked: np.ndarray
    chunks: list[Chunk] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def encode(self) -> list[dict[str, Any]]:
        """Return the chunks for the page's JSON."""
        return [asdict(chunk) for chunk in self.chunks]


def pack_rollouts(run: Run, rows: TrajectoryRows, began: float, runs: int = 1) -> Rollouts:
    """Pack the trajectories of a run.

    Args:
        run: for its texts.
        rows: its trajectories.
        began: the time that is 0 on the page.
        runs: how many runs share the page.
    """
    texts, is_cut = _read_texts(run, MAX_TEXTS // runs)
    steps = np.where(np.isnan(rows.step), -1, rows.step).astype(int)
    found = np.unique(steps)
    part = max(MAX_ROWS // runs // max(len(found), 1), 1)
    budget = MAX_PACKED // runs
    result = Rollouts(np.zeros(0, int))
    picked = [result.picked]
    order = np.argsort(steps, kind="stable")
    bounds = np.searchsorted(steps[order], [*found, found[-1] + 1] if len(found) else [0])
    for number, step in enumerate(found.tolist()):
        places = order[bounds[number] : bounds[number + 1]]
        own = _pick_rows(places, rows, texts, part)
        picked.append(own)
        allowed = max(budget, 0) // (len(found) - number)
        chunk = _pack_chunk(None if step < 0 else step, own, rows, texts, began, allowed)
        budget -= len(chunk.packed)
        result.chunks.append(chunk)
    result.picked = np.sort(np.concatenate(picked))
    if len(result.picked) < len(rows):
        result.notes.append(
            f"{len(result.picked):,} of {len(rows):,} trajectories can be opened here: of each "
            "step those with a text, the longest, and some of the others. verl-pipeline ledger "
            "finds all."
        )
    if is_cut:
        result.notes.append(f"Texts are read up to {MAX_TEXTS:,} of them; the run has more.")
    return result


def _read_texts(run: Run, limit: int) -> tuple[dict[tuple[str, int], list[Text]], bool]:
    """Return the texts by prompt and session, and whether there are more than ``limit``."""
    texts: dict[tuple[str, int], list[Text]] = {}
    for number, text in enumerate(run.read_texts()):
        if number == limit:
            return texts, True
        texts.setdefault((text.prompt, text.session), []).append(text)
    return texts, False


def _pick_rows(
    places: np.ndarray, rows: TrajectoryRows, texts: dict[tuple[str, int], list[Text]], part: int
) -> np.ndarray:
    """Return at most ``part`` of the places, in their order."""
    if len(places) <= part:
        return places
    length = np.nan_to_num(rows.response_tokens[places], nan=-1)
    longest = places[np.argsort(-length, kind="stable")[: min(LONGEST, part)]]
    with_text = (
        np.array([p for p in places.tolist() if _find_key(rows, p) in texts], int)
        if texts
        else places[:0]
    )
    # Those with a text and the longest, as far as there is room; then some of the rest.
    first = pick_evenly(np.union1d(with_text, longest), part)
    rest = places[~np.isin(places, first)]
    return np.sort(np.concatenate([first, pick_evenly(rest, part - len(first))]))


def _find_key(rows: TrajectoryRows, place: int) -> tuple[str, int]:
    session = rows.session[place]
    return rows.prompt.names[rows.prompt.codes[place]], -1 if np.isnan(session) else int(session)


def _find_text(texts: dict[tuple[str, int], list[Text]], key: tuple[str, int], step: int | None):
    """Return the text of a trajectory; a prompt that was drawn twice has one for each step."""
    own = texts.get(key, [])
    return next((text for text in own if text.step == step), own[0] if own else None)


def _pack_chunk(
    step: int | None,
    places: np.ndarray,
    rows: TrajectoryRows,
    texts: dict[tuple[str, int], list[Text]],
    began: float,
    allowed: int,
) -> Chunk:
    """Pack trajectories, with as many texts as fit into ``allowed`` bytes."""
    keys = [_find_key(rows, place) for place in places.tolist()]
    columns: dict[str, Any] = {
        "id": places.tolist(),
        "prompt": [key[0] for key in keys],
        "fate": rows.fates[places].tolist(),
        "reward": _list_numbers(rows.reward[places], 6),
        "started": _list_numbers(rows.started[places] - began, 2),
        "seconds": _list_numbers(rows.stopped[places] - rows.started[places], 2),
        "to_first_token": _list_numbers(rows.first_token[places] - rows.started[places], 2),
        "waited": _list_numbers(rows.started[places] - rows.asked[places], 2),
        "spans": [
            read_spans(rows.version_spans.names[code]) if code >= 0 else None
            for code in rows.version_spans.codes[places].tolist()
        ],
    }
    for name in _NUMBERS:
        columns[name] = _list_numbers(getattr(rows, name)[places], 0)
    for name in ("replica", "reward_worker", "verdict", "reason"):
        texts_of = getattr(rows, name)
        columns[name] = [
            _shorten(texts_of.names[code]) if code >= 0 else None
            for code in texts_of.codes[places].tolist()
        ]
    found = [_describe_text(_find_text(texts, key, step)) for key in keys]
    share = 1.0
    while True:
        kept = set(pick_evenly(np.flatnonzero([t is not None for t in found]), _cut(found, share)))
        columns["text"] = [text if i in kept else None for i, text in enumerate(found)]
        columns["withheld"] = [text is not None and i not in kept for i, text in enumerate(found)]
        packed = _pack(columns)
        if len(packed) <= allowed or not kept:
            return Chunk(step, len(places), packed)
        share = min(share / 2, 0.9 * share * allowed / len(packed))


def _cut(found: list[Any], share: float) -> int:
    return int(share * sum(text is not None for text in found))


def _pack(columns: dict[str, Any]) -> str:
    data = json.dumps(columns, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _list_numbers(values: np.ndarray, digits: int) -> list[float | int | None]:
    """Return numbers for JSON; unknown and infinite ones are None."""
    rounded = np.round(values, digits).tolist()
    return [
        None if v != v or v in (np.inf, -np.inf) else int(v) if digits == 0 else v for v in rounded
    ]


def _describe_text(text: Text | None) -> dict[str, Any] | None:
    if text is None:
        return None
    return {
        "prompt": _shorten(text.prompt_text),
        "response": _shorten(text.response_text),
        "truth": None if text.ground_truth is None else _shorten(text.ground_truth),
        "versions": text.token_versions,
    }


def _shorten(text: str) -> str:
    return shorten_text(text, MAX_CHARACTERS, "the run's folder")


def shorten_text(text: str, limit: int, place: str) -> str:
    """Return at most ``limit`` characters, from both ends, and between them which place has all."""
    omitted, half = len(text) - limit, limit // 2
    if omitted <= 0:
        return text
    return (
        f"{text[:half]}\n[... {omitted:,} characters are left out here; {place} has them ...]\n"
        f"{text[-half:]}"
    )
