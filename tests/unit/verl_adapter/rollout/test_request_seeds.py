"""Seeds that repeat with the run, and that no two requests of it share."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.request_seeds import SEED, compute_seed, renew_seed


def choose(is_seeded, seed=42, **place):
    worker = object.__new__(PipelineAgentLoopWorker)
    worker._is_seeded, worker.rollout_config = is_seeded, SimpleNamespace(seed=seed)
    return worker.choose_sampling_params({"temperature": 0.5}, **place)


def test_requests_have_no_seeds_unless_they_are_asked_for():
    assert choose(False, step=1, row=2, session=3) == {"temperature": 0.5}


def test_each_trajectory_of_a_run_has_another_seed_and_the_same_one_again():
    places = [
        {"seed": seed, "step": step, "row": row, "session": session}
        for seed in (42, 43)
        for step in range(1, 6)
        for row in (*range(8), "a row with a name")
        for session in range(4)
    ]
    found = [choose(True, **place) for place in places]
    assert found == [choose(True, **place) for place in places]
    assert all(params["temperature"] == 0.5 for params in found)
    assert len({params[SEED] for params in found}) == len(places)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_a_renewed_seed_is_one_that_engines_take_and_another(seed, conversation):
    renewed = renew_seed({SEED: seed, "n": 1}, conversation)
    assert renewed == {SEED: compute_seed(seed, conversation), "n": 1}
    assert 0 <= renewed[SEED] < 2**32
