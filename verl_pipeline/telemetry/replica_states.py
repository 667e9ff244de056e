"""What each replica does past the barrier, where it begins and loads by itself.

Who may begin what follows from the records as in :mod:`verl_pipeline.trainer.schedule`: what waits
begins in the order of the batches, so a replica samples if its version is one of those that the
first one that waits may have.

Invariants:
* The edges cut the run's window into parts within which no state changes; each part has one state,
  and one cause or none.
* A replica's places are its slots, but no more than its share of one batch.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.demand import NONE, Demand, Versions, find_demand, list_versions
from verl_pipeline.telemetry.in_flight import Lives, count_over
from verl_pipeline.telemetry.records import Header, Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import STATES, cause_code, code


@dataclass(frozen=True)
class Background:
    """What is the same for all replicas; int64 us [parts + 1], int64 [parts] each.

    Attributes:
        edges: of the parts.
        steps: index of the step's window, or -1.
        trainer: codes of the trainer's states.
        trainer_causes: why it does no work of its own, or -1.
    """

    edges: np.ndarray
    steps: np.ndarray
    trainer: np.ndarray
    trainer_causes: np.ndarray


@dataclass(frozen=True)
class ReplicaTime:
    """One replica's states over time.

    Attributes:
        lane: its name.
        edges: int64 us [parts + 1].
        steps: int64 [parts], index of the step's window, or -1.
        states, causes: int64 codes [parts]; no cause (-1) where it generates.
        tokens: float64 [parts], response tokens that it sampled, each trajectory's spread evenly
            over its time.
    """

    lane: str
    edges: np.ndarray
    steps: np.ndarray
    states: np.ndarray
    causes: np.ndarray
    tokens: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Of the parts; int64 us."""
        return np.diff(self.edges)


def find_replica_times(
    run: Run, origin: float, bounds: np.ndarray, lives: Lives, background: Background
) -> list[ReplicaTime]:
    """Return what each replica does, in the order of their names.

    Args:
        origin: seconds since the epoch of the first edge.
        bounds: begin and end of each start of the run, int64 us [starts, 2].
    """
    last = int(background.edges[-1])
    loads = list_versions(run, origin, last, Pool.ROLLOUT, "load_weights")
    published = list_versions(run, origin, last, Pool.TRAINER, "update_weights")
    first = min(header.first_step for header in run.headers) - 1
    demand = find_demand(run.header, lives, published.get("driver", Versions.empty()), first, last)
    changes = np.flatnonzero(
        (np.diff(background.steps) != 0)
        | (np.diff(background.trainer) != 0)
        | (np.diff(background.trainer_causes) != 0)
    )
    shared = [background.edges[[0, -1]], background.edges[changes + 1], demand.edges]
    shared.append(bounds.ravel())
    table = run.trajectories["replica"].take(pa.array(lives.rows))
    names = pc.dictionary_encode(pc.fill_null(table, "")).combine_chunks()
    if isinstance(names, pa.ChunkedArray):  # of no trajectory
        names = pa.array([], pa.string()).dictionary_encode()
    known = [name for name in names.dictionary.to_pylist() if name]
    codes = names.indices.to_numpy()
    expected = [f"replica {rank}" for rank in range(min(run.header.replicas, len(lives.rows) + 1))]
    found = sorted({*known, *loads, *expected} or {"replica 0"}, key=_sort_lane)
    places = {name: place for place, name in enumerate(names.dictionary.to_pylist())}
    tokens = run.trajectories["response_tokens"].take(pa.array(lives.rows))
    tokens = np.maximum(pc.fill_null(tokens, 0).to_numpy().astype(float), 0.0)
    return [
        _find_states(
            run,
            name,
            _Sampled(lives, tokens, np.flatnonzero(codes == places.get(name, -1))),
            loads.get(name, Versions.empty()),
            demand,
            background,
            np.unique(np.concatenate(shared)),
            bounds,
        )
        for name in found
    ]


@dataclass(frozen=True)
class _Sampled:
    """The trajectories of one replica: ``own`` are their places in ``lives``."""

    lives: Lives
    tokens: np.ndarray
    own: np.ndarray

    def count(self, edges: np.ndarray, is_validation: bool) -> np.ndarray:
        """How many it has open; int64 [parts]."""
        chosen = self.own[self.lives.is_validation[self.own] == is_validation]
        return count_over(edges, self.lives.starts[chosen], self.lives.ends[chosen])

    def count_tokens(self, edges: np.ndarray) -> np.ndarray:
        """Of the training; float64 [parts]."""
        lives, own = self.lives, self.own[~self.lives.is_validation[self.own]]
        own = own[lives.ends[own] > lives.starts[own]]
        rates = self.tokens[own] / (lives.ends[own] - lives.starts[own])
        size = len(edges)
        up = np.bincount(np.searchsorted(edges, lives.starts[own]), rates, size)
        down = np.bincount(np.searchsorted(edges, lives.ends[own]), rates, size)
        return np.maximum(np.cumsum(up - down)[:-1], 0.0) * np.diff(edges)


def _find_states(
    run: Run,
    lane: str,
    sampled: _Sampled,
    loads: Versions,
    demand: Demand,
    background: Background,
    shared: np.ndarray,
    bounds: np.ndarray,
) -> ReplicaTime:
    lives, own = sampled.lives, sampled.own
    edges = np.unique(
        np.concatenate([shared, lives.starts[own], lives.ends[own], loads.starts, loads.ends])
    )
    begins = edges[:-1]
    here = np.searchsorted(background.edges, begins, side="right") - 1
    trainer, causes = background.trainer[here], background.trainer_causes[here]
    there = np.searchsorted(demand.edges, begins, side="right") - 1
    needed, published = demand.needed[there], demand.published[there]
    version = loads.find_at(begins)
    opened, validating = sampled.count(edges, False), sampled.count(edges, True)
    is_few, waits = 2 * opened < _count_places(run.header), needed != NONE
    is_behind = waits & (version < needed) & (needed <= published)
    is_over = run.has_ended & (begins >= lives.ends.max(initial=0))
    named = {
        "weight_sync": count_over(edges, loads.starts, loads.ends) > 0,
        "draining": (opened > 0) & is_few & is_behind,
        "tail": (opened > 0) & is_few,
        "generating": opened > 0,
        "validate": validating > 0,
        "start": trainer == code(Pool.TRAINER, "start"),
        "idle": is_over,
        # With too few versions published, the bound on the age of data says so.
        "wait_trainer": ~waits | (published < needed),
        "dispatch": ~is_behind,
    }
    states = np.select(
        list(named.values()),
        [np.full(len(begins), code(Pool.ROLLOUT, name)) for name in named],
        code(Pool.ROLLOUT, "weight_sync"),  # it is about to be told
    )
    for (_, end), (begin, _) in zip(bounds[:-1], bounds[1:], strict=True):
        states[slice(*np.searchsorted(edges, (end, begin)))] = code(Pool.ROLLOUT, "down")
    return ReplicaTime(
        lane,
        edges,
        background.steps[here],
        states,
        _find_causes(states, np.where(causes < 0, cause_code("training"), causes)),
        sampled.count_tokens(edges),
    )


def _find_causes(states: np.ndarray, of_trainer: np.ndarray) -> np.ndarray:
    """Return why a replica does not generate; ``of_trainer`` is what holds the trainer up."""
    fixed = {
        "tail": "tail of generation",
        "draining": "drain before a load",
        "dispatch": "dispatch",
        "weight_sync": "weights",
        "validate": "validation",
        "start": "start",
        "idle": "end of the run",
        "down": "down",
    }
    table = np.array(
        [cause_code(fixed[name]) if name in fixed else -2 for name in STATES[Pool.ROLLOUT]]
    )
    table[code(Pool.ROLLOUT, "generating")] = -1
    found = table[states]
    return np.where(found == -2, of_trainer, found)


def _count_places(header: Header) -> int:
    share = -(-header.batch_size * header.group_size // max(header.replicas, 1))
    return max(min(header.slots or share, share), 1)


def _sort_lane(name: str) -> tuple[str, int, str]:
    word, _, number = name.rpartition(" ")
    return word, int(number) if number.isdecimal() and len(number) < 10 else 0, name
