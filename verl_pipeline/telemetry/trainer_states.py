"""The trainer's state at every moment, from the spans of the driver.

Invariants:
* An inner span counts before an outer one.
* A wait for a batch that is generated, and not yet graded, is a wait for the reward.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.in_flight import Lives, group_last, to_microseconds
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import SPANS, cause_code, code


@dataclass(frozen=True)
class DriverSpans:
    """The driver's spans that have a state, the longer ones first; times are int64 us [spans]."""

    names: list[str]
    starts: np.ndarray
    ends: np.ndarray
    keys: np.ndarray  # the batch that the span is about, or the step

    @classmethod
    def read(cls, run: Run, origin: float, last: float) -> "DriverSpans":
        spans = run.spans.filter(
            (pc.field("pool") == str(Pool.TRAINER))
            & (pc.field("lane") == "driver")
            & pc.field("name").isin(list(SPANS))
        )
        starts = to_microseconds(np.clip(spans["start"].to_numpy(), origin, last), origin)
        ends = to_microseconds(np.clip(spans["end"].to_numpy(), origin, last), origin)
        keys = pc.coalesce(spans["batch"], spans["step"], pa.scalar(-1)).to_numpy()
        order = np.argsort(starts - ends, kind="stable")
        names = spans["name"].take(pa.array(order)).to_pylist()
        return cls(names, starts[order], ends[order], keys[order])


def slice_parts(edges: np.ndarray, start: int, end: int) -> slice:
    """The parts between two edges."""
    return slice(*np.searchsorted(edges, (start, end)))


def find_trainer_states(
    edges: np.ndarray,
    driver: DriverSpans,
    bounds: np.ndarray,
    windows: list[tuple[int, int, int]],
    lives: Lives,
    flows: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the trainer's states, and past the barrier the cause of each wait for a batch.

    Args:
        edges: int64 us [parts + 1].
        bounds: begin and end of each start of the run, int64 us [starts, 2].
        windows: (step, start us, end us).
        flows: whether replicas begin and load by themselves (``Header.flows``).

    Returns:
        Codes of states, int64 [parts]; codes of causes by what is left of the batch, int64 [parts]:
        its tail if that is fewer than half of its trajectories, ``polling`` where nothing is left.
    """
    states = _paint_spans(edges, driver, bounds, windows)
    _part_waits(states, edges, driver, lives)
    return states, _find_wait_causes(edges, driver, lives) if flows else None


def _paint_spans(
    edges: np.ndarray,
    driver: DriverSpans,
    bounds: np.ndarray,
    windows: list[tuple[int, int, int]],
) -> np.ndarray:
    """Return the trainer's states: inner spans, which are shorter, over outer ones."""
    states = np.full(len(edges) - 1, code(Pool.TRAINER, "other"))
    firsts = np.array([start for _, start, _ in windows], np.int64)
    for begin, end in bounds.tolist():
        inside = firsts[(firsts >= begin) & (firsts <= end)]
        states[slice_parts(edges, begin, inside.min(initial=end))] = code(Pool.TRAINER, "start")
    for name, start, end in zip(driver.names, driver.starts, driver.ends, strict=True):
        states[slice_parts(edges, start, end)] = code(Pool.TRAINER, SPANS[name])
    return states


def _part_waits(trainer: np.ndarray, edges: np.ndarray, driver: DriverSpans, lives: Lives) -> None:
    training = ~lives.is_validation
    keys = lives.keys[training]
    generated = group_last(keys, lives.ends[training])
    graded = group_last(keys, lives.graded[training])
    for name, start, end, key in zip(
        driver.names, driver.starts, driver.ends, driver.keys.tolist(), strict=True
    ):
        if SPANS[name] == "wait_rollout" and key in generated:
            part = trainer[slice_parts(edges, max(start, generated[key]), min(end, graded[key]))]
            part[part == code(Pool.TRAINER, "wait_rollout")] = code(Pool.TRAINER, "wait_reward")


def _find_wait_causes(edges: np.ndarray, driver: DriverSpans, lives: Lives) -> np.ndarray:
    causes = np.full(len(edges) - 1, cause_code("polling"))
    keys = np.where(lives.is_validation, -1, lives.keys)
    order = np.lexsort((lives.ends, keys))
    keys, ends, is_slow = keys[order], lives.ends[order], lives.is_slow[order]
    for name, start, end, key in zip(
        driver.names, driver.starts, driver.ends, driver.keys.tolist(), strict=True
    ):
        first, after = np.searchsorted(keys, (key, key + 1))
        if SPANS[name] != "wait_rollout" or key < 0 or first == after:
            continue
        own, slow = ends[first:after], ends[first:after][is_slow[first:after]]
        part = slice_parts(edges, start, min(end, own[-1]))
        moments = edges[part]
        left = len(own) - np.searchsorted(own, moments, side="right")
        slow_left = len(slow) - np.searchsorted(slow, moments, side="right")
        causes[part] = np.select(
            [slow_left == left, 2 * left < len(own)],
            [cause_code("slow replica"), cause_code("tail of generation")],
            cause_code("generation"),
        )
    return causes
