"""Small profiles and workloads for tests of the planner."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import make_profile
from verl_pipeline.planner.schedules import LARGEST_STALENESS, Layout, Schedule
from verl_pipeline.planner.workload import Workload

FLOWS = ("rolling", "in_flight")


def make_content(**changes: Any) -> dict[str, Any]:
    """The content of a small profile; a change is named ``section__field`` or ``field``."""
    content: dict[str, Any] = {
        "name": "small",
        "gpus": 4,
        "sampling": {
            "prompts": 3,
            "samples": 2,
            "response_tokens": {"kind": "lognormal", "mean": 200, "sigma": 0.8, "cap": 1000},
            "prompt_tokens": 10,
            "slots": 4,
            "decode_base_s": 0.1,
            "decode_per_sequence_s": 0.01,
            "prefill_tokens_per_s": 1000.0,
        },
        "training": {"gpus": 2, "update_s": 30.0},
        "weights": {"publish_s": 2.0, "load_s": 1.0, "switch_s": 4.0},
        "reward": {"seconds": 1.5, "workers": 2},
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            content[section] = {**content[section], field: value}
        else:
            content[section] = value
    return content


def make_small(**changes: Any) -> Profile:
    return make_profile(make_content(**changes))


@dataclass(frozen=True)
class Case:
    """A profile with a drawn workload and a layout."""

    profile: Profile
    workload: Workload
    layout: Layout
    steps: int


@st.composite
def cases(draw: st.DrawFn, trajectories: int = 6, steps: int = 4) -> Case:
    """Draw a case with two pools; lengths are no whole numbers, so no two events coincide."""
    prompts, samples = draw(st.integers(1, 3)), draw(st.integers(1, max(1, trajectories // 3)))
    seconds = st.floats(0.0, 20.0)
    profile = make_small(
        sampling__prompts=prompts,
        sampling__samples=samples,
        sampling__decode_base_s=draw(st.floats(0.01, 1.0)),
        sampling__decode_per_sequence_s=draw(st.floats(0.0, 0.3)),
        sampling__prefill_tokens_per_s=draw(st.floats(50.0, 1e6)),
        training__update_s=draw(st.floats(0.5, 200.0)),
        training__scaling=draw(st.floats(0.0, 1.0)),
        weights={"publish_s": draw(seconds), "load_s": draw(seconds), "switch_s": draw(seconds)},
        reward__workers=draw(st.integers(1, 4)),
        reward__streamed_in_sync=draw(st.booleans()),
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (steps + LARGEST_STALENESS, prompts * samples)
    sigma = draw(st.sampled_from([0.1, 0.8, 1.5]))
    rewards = draw(st.sampled_from([0.01, 2.0, 20.0])) * random.random(shape)
    workload = Workload(
        100 * random.lognormal(0.0, sigma, shape), 1 + 50 * random.random(shape), rewards
    )
    layout = Layout(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        longest_first=draw(st.booleans()),
    )
    return Case(profile, workload, layout, steps)


def schedules() -> st.SearchStrategy[Schedule]:
    """Draw any schedule."""
    fixed = [Schedule("sync"), Schedule("one_step_off", 1)]
    return st.one_of(
        st.sampled_from(fixed),
        st.builds(Schedule, st.just("drained"), st.integers(0, 1)),
        st.builds(Schedule, st.sampled_from(FLOWS), st.integers(1, LARGEST_STALENESS)),
    )
