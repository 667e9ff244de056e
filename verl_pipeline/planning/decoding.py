"""How fast a run's replicas decoded and read prompts, fitted to what it recorded.

Of a trajectory of L tokens that was generated in T seconds beside n others on average over its
tokens, T = c + base x L + slope x L x n, where c is the time until its first token: that of all
prompts that were submitted with it. Where requests waited for a slot, T holds their wait, too; then
the engines' own counts are used: seconds between two readings = base x decoding steps + slope x
tokens + prefill x prompt tokens.

Invariants:
* No fitted number is negative, and none that the records cannot tell is made up: what depends on
  the rest is left out, and said in a note.
* Time in which weights were sent counts for no trajectory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planning.least_squares import fit_shares
from verl_pipeline.telemetry.in_flight import Lives, count_over, to_microseconds
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.timeline import make_timeline

# How many ran beside a trajectory, over its tokens, depends on the ratio of slope and base: tried
# are so many from the least to the most, then so many more between the two beside the best.
RATIOS, FINE, REFINEMENTS = (1e-5, 100.0, 29), 9, 7
# Of the squared error, what a slope must explain to be told.
WORTHWHILE = 0.02
# Trajectories of a replica that are fitted, taken evenly.
MOST_TRAJECTORIES = 5_000
# Readings of the engines that make a fit.
FEWEST_READINGS = 10
# Tokens a second where reading prompts took no time that could be measured.
NO_TIME = 1e9


@dataclass(frozen=True)
class Decoding:
    """What was fitted.

    Attributes:
        running, token_s: sequences on a replica and seconds of a decoding step, at the fewest and
            at the most that were measured; one pair where they are the same.
        prefill_tokens_per_s: of a replica.
        notes: what could not be told.
    """

    running: tuple[float, ...]
    token_s: tuple[float, ...]
    prefill_tokens_per_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Lane:
    """What ran on one replica: int64 us; ``counts`` and ``seconds`` without pauses, [parts].

    Attributes:
        edges: [parts + 1].
        starts, ends: places of the measured trajectories' edges, [trajectories].
        tokens: of their responses, float64, [trajectories].
    """

    edges: np.ndarray
    counts: np.ndarray
    seconds: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    tokens: np.ndarray


def measure_decoding(run: Run, steps: set[int], slots: int, batch_prompt_tokens: float) -> Decoding:
    """Fit the rates of a run's replicas, taken as equal.

    Args:
        steps: those whose trajectories count.
        slots: of a replica.
        batch_prompt_tokens: tokens of the prompts of a batch, on one replica.

    Raises:
        ProfileError: nothing was generated whose time and tokens are known.
    """
    lanes = list(_list_lanes(run, steps))
    if not sum(len(lane.tokens) for lane in lanes):
        raise ProfileError(
            "no response of its complete steps has both tokens and times; give a run whose "
            "telemetry was on"
        )
    waits = max(lane.counts.max(initial=0) for lane in lanes) > slots or _waits(run)
    if waits:
        fitted = _fit_readings(run)
        if fitted is not None:
            return fitted
    fitted = _fit_trajectories(lanes, batch_prompt_tokens)
    if not waits:
        return fitted
    note = (
        "Requests waited for a slot, and the engines' own counts are missing: their wait counts as "
        "decoding, which makes it seem slower than it is."
    )
    return Decoding(
        fitted.running, fitted.token_s, fitted.prefill_tokens_per_s, (note, *fitted.notes)
    )


def _list_lanes(run: Run, steps: set[int]) -> Iterator[_Lane]:
    """What ran on each replica; on a mean one where a response does not tell its own."""
    timeline = make_timeline(run)
    lives = timeline.lives
    table = run.trajectories.take(pa.array(lives.rows))
    tokens = pc.fill_null(table["response_tokens"], 0).to_numpy().astype(float)
    is_measured = ~lives.is_validation & table["generated"].is_valid().to_numpy()
    is_measured &= (tokens >= 1) & (lives.ends > lives.starts)
    is_measured &= np.isin(lives.keys, list(steps))
    pauses = run.spans.filter(
        (pc.field("lane") == "driver") & (pc.field("name") == "update_weights")
    )
    bounds = [
        to_microseconds(pauses[name].to_numpy(), timeline.origin) for name in ("start", "end")
    ]
    replicas = max(run.header.replicas, 1)
    names = pc.dictionary_encode(table["replica"].combine_chunks())
    codes = pc.fill_null(names.indices, -1).to_numpy()
    if replicas == 1 or (codes[is_measured] < 0).any():
        everything = np.ones(len(tokens), bool)
        yield _make_lane(lives, everything, is_measured, tokens, bounds, replicas)
        return
    # What has no replica yet is still being generated, beside nothing that is measured.
    for code in range(len(names.dictionary)):
        yield _make_lane(lives, codes == code, is_measured, tokens, bounds, 1)


def _make_lane(
    lives: Lives,
    is_here: np.ndarray,
    is_measured: np.ndarray,
    tokens: np.ndarray,
    pauses: list[np.ndarray],
    replicas: int,
) -> _Lane:
    starts, ends = lives.starts[is_here], lives.ends[is_here]
    first, last = starts.min(initial=0), ends.max(initial=0)
    begins, finishes = (np.clip(bound, first, last) for bound in pauses)
    edges = np.unique(np.concatenate([starts, ends, begins, finishes, [first, last]]))
    goes_on = count_over(edges, begins, finishes) == 0
    chosen = np.flatnonzero(is_here & is_measured)
    chosen = chosen[:: -(-len(chosen) // MOST_TRAJECTORIES) or 1]
    return _Lane(
        edges,
        count_over(edges, starts, ends) / replicas,
        np.diff(edges) / 1e6 * goes_on,
        np.searchsorted(edges, lives.starts[chosen]),
        np.searchsorted(edges, lives.ends[chosen]),
        tokens[chosen],
    )


def _fit_trajectories(lanes: list[_Lane], batch_prompt_tokens: float) -> Decoding:
    tokens = np.concatenate([lane.tokens for lane in lanes])
    seconds = np.concatenate([_sum_over(lane, lane.seconds) for lane in lanes])
    ratio = _find_ratio(lambda ratio: _fit_ratio(lanes, tokens, seconds, ratio)[1], seconds)
    (base, constant), _, running = _fit_ratio(lanes, tokens, seconds, ratio)
    slope = base * ratio
    if not base:
        raise ProfileError(
            "the time of a response does not grow with its tokens; give a run with longer ones"
        )
    low, high = (float(share) for share in np.quantile(running, (0.05, 0.95)))
    notes = []
    if not slope:
        notes.append(
            f"Replicas ran about {format_decimal(float(running.mean()))} sequences all the time, "
            "or responses were too even: what a further one adds to a decoding step could not be "
            "told and counts as nothing. With fewer replicas, sampling may be slower than said."
        )
        low = high = float(running.mean())
    prefill = min(batch_prompt_tokens / max(constant, 1e-12), NO_TIME)
    if prefill == NO_TIME:
        notes.append("Reading prompts took no time that could be measured; it counts as none.")
    counts = (low, high) if high > low else (low,)
    return Decoding(
        tuple(max(count, 1.0) for count in counts),
        tuple(base + slope * max(count, 1.0) for count in counts),
        prefill,
        tuple(notes),
    )


def _fit_ratio(
    lanes: list[_Lane], tokens: np.ndarray, seconds: np.ndarray, ratio: float
) -> tuple[list[float], float, np.ndarray]:
    """Fit the seconds if what a sequence adds is ``ratio`` times the rest of a decoding step.

    Returns:
        The rest of a step and the constant, in seconds; the squared error; and the sequences that
        ran beside each trajectory (:func:`_average_running`).
    """
    running = np.concatenate([_average_running(lane, ratio) for lane in lanes])
    columns = [tokens * (1 + ratio * running), np.ones(len(tokens))]
    factors = fit_shares(columns, seconds)
    error = float(((np.stack(columns, axis=1) @ factors - seconds) ** 2).sum())
    return factors.tolist(), error, running


def _find_ratio(measure_error: Callable[[float], float], seconds: np.ndarray) -> float:
    """The ratio of the least error; 0 where none explains more than that."""
    without = measure_error(0.0)
    ratios = np.geomspace(*RATIOS)
    for _ in range(REFINEMENTS):
        errors = [measure_error(float(ratio)) for ratio in ratios]
        place = int(np.argmin(errors))
        best, least = float(ratios[place]), errors[place]
        low, high = ratios[max(place - 1, 0)], ratios[min(place + 1, len(ratios) - 1)]
        ratios = np.geomspace(low, high, FINE)
    explained = without - least
    worthwhile = max(WORTHWHILE * without, 1e-8 * float((seconds**2).sum()))
    return best if explained > worthwhile else 0.0


def _average_running(lane: _Lane, ratio: float) -> np.ndarray:
    """Sequences that ran beside each trajectory, itself included, on average over its tokens."""
    steps = lane.seconds / (1 + ratio * lane.counts)
    all_steps = _sum_over(lane, steps)
    return _sum_over(lane, steps * lane.counts) / np.maximum(all_steps, 1e-12)


def _sum_over(lane: _Lane, values: np.ndarray) -> np.ndarray:
    """Sums of the parts' values over each trajectory."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[lane.ends] - sums[lane.starts]


def _waits(run: Run) -> bool:
    """Whether requests wait in the engines in most readings in which anything runs."""
    readings = run.gauges.filter(pc.field("running") > 0)
    waiting = pc.fill_null(readings["waiting"], 0.0).to_numpy()
    return bool(len(waiting)) and float(np.median(waiting)) > 0


def _fit_readings(run: Run) -> Decoding | None:
    """Fit the engines' own counts; None if there are too few."""
    rows = []
    for lane in pc.unique(run.gauges["lane"]).to_pylist():
        own = run.gauges.filter(pc.field("lane") == lane)
        read = {
            name: pc.fill_null(own[name].cast("float64"), np.nan).to_numpy()
            for name in ("t", "running", "generated_tokens", "prompt_tokens")
        }
        prompts = np.nan_to_num(np.diff(read["prompt_tokens"]))
        running = (read["running"][1:] + read["running"][:-1]) / 2
        both = np.minimum(read["running"][1:], read["running"][:-1])
        tokens, seconds = np.diff(read["generated_tokens"]), np.diff(read["t"])
        usable = (both >= 1) & (tokens > 0) & (seconds > 0) & (prompts >= 0)
        rows.append(np.stack([running, tokens, prompts, seconds])[:, usable])
    running, tokens, prompts, seconds = np.concatenate([np.zeros((4, 0)), *rows], axis=1)
    if len(seconds) < FEWEST_READINGS:
        return None
    base, slope, prefill = fit_shares([tokens / running, tokens, prompts], seconds).tolist()
    if not base + slope:
        return None
    low, high = (float(share) for share in np.quantile(running, (0.05, 0.95)))
    notes = []
    if not slope:
        notes.append(
            f"Replicas ran about {format_decimal(float(running.mean()))} sequences all the time: "
            "what a further one adds to a decoding step could not be told and counts as nothing. "
            "With fewer replicas, sampling may be slower than said."
        )
    if not prefill:
        notes.append("Reading prompts took no time that could be measured; it counts as none.")
    counts = (low, high) if slope and high > low else (float(running.mean()),)
    return Decoding(
        counts,
        tuple(base + slope * count for count in counts),
        1 / prefill if prefill else NO_TIME,
        tuple(notes),
    )
