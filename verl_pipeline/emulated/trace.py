"""Response lengths of a recorded run, taken in their order instead of drawn.

Invariants:
* Trajectory i of batch j has one length, whatever the mode: the recorded ones follow each other
  through the batches, from batch ``seed`` of the record on, and begin anew at its end.
* Prompts and rewards are still the profile's draws.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from verl_pipeline.planner.distributions import Distribution
from verl_pipeline.planner.profile import Profile, check_profile, replace_work
from verl_pipeline.planner.workload import Workload


def write_trace(path: Path, lengths: np.ndarray) -> None:
    """Write a run's lengths, float64 [trajectories], for its processes."""
    np.save(path, lengths)


def read_trace(path: Path) -> np.ndarray:
    """Read what :func:`write_trace` wrote."""
    return np.load(path)


def follow_trace(profile: Profile, lengths: np.ndarray) -> Profile:
    """The profile with recorded lengths, for what needs their distribution only.

    Raises:
        ProfileError: the cluster cannot hold the longest.
    """
    found = Distribution("empirical", values=tuple(lengths.tolist()))
    changed = replace_work(profile, replace(profile.sampling, response_tokens=found))
    check_profile(changed)
    return changed


def take_lengths(workload: Workload, lengths: np.ndarray, seed: int) -> Workload:
    """The workload with recorded lengths, which fill at least one batch."""
    count = workload.responses.size
    first = seed * workload.responses.shape[1]
    places = np.arange(first, first + count) % len(lengths)
    return replace(workload, responses=np.ceil(lengths[places]).reshape(workload.responses.shape))
