"""Between trainer and selector: what is known when, the floor, resumes, refusals."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.curriculum_world import earn, make_curriculum, make_prompts, run_steps
from verl_pipeline.curriculum.curriculum import CurriculumMismatch, Proposal
from verl_pipeline.curriculum.measures import compute_effective_share
from verl_pipeline.curriculum.outcomes import RewardOutOfRange, make_outcomes
from verl_pipeline.curriculum.uniform import UniformSelector

ENTRIES = ["uniform", "learnability", "similar", {"name": "similar", "by": ["difficulty"]}]


def draw_rates(n, seed=0):
    return np.random.RandomState(seed).choice([0.0, 0.05, 0.5, 1.0], n)


class Stubborn(UniformSelector):
    """Wants the first rows that it may have, again and again."""

    name = "stubborn"
    covers_all = False

    def choose(self, batch, count, free):
        return np.flatnonzero(free)[:count]


STUBBORN = f"{__name__}.Stubborn"


@given(
    n=st.integers(4, 60),
    batch_size=st.integers(1, 4),
    share=st.sampled_from([0.07, 0.1, 0.25, 1 / 3, 0.5, 1.0]),
    lag=st.integers(0, 3),
)
@settings(max_examples=12, deadline=None)
def test_no_prompt_waits_longer_than_the_bound(n, batch_size, share, lag):
    curriculum = make_curriculum(
        STUBBORN, make_prompts(n), batch_size=batch_size, lag=lag, floor_share=share
    )
    bound = math.ceil(n / (Fraction(str(share)) * batch_size))
    steps = 2 * bound + 3
    chosen = run_steps(curriculum, np.full(n, 0.5), steps, lead=lag)
    for first in range(1, len(chosen) - bound + 2):
        seen = {row for batch in range(first, first + bound) for row in chosen[batch]}
        assert seen == set(range(n)), (first, bound)


def test_without_the_floor_a_prompt_would_starve():
    """The test above can fail: this selector alone never gives the last prompts a turn."""
    curriculum = make_curriculum(STUBBORN, make_prompts(50), batch_size=4, floor_share=1e-9)
    chosen = run_steps(curriculum, np.full(50, 0.5), 100, lead=1)
    assert max(max(rows) for rows in chosen.values()) < 12


@given(entry=st.sampled_from(ENTRIES), lag=st.integers(0, 4), seed=st.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_a_choice_does_not_depend_on_how_far_ahead_it_is_made(entry, lag, seed):
    """At every lead up to the lag: what is already known and may not count, does not."""
    rates = draw_rates(30, seed)
    every = [
        run_steps(
            make_curriculum(entry, make_prompts(30), batch_size=3, lag=lag), rates, 25, lead=lead
        )
        for lead in range(lag + 1)
    ]
    for chosen in every:
        assert {batch: chosen[batch] for batch in range(1, 26)} == {
            batch: every[0][batch] for batch in range(1, 26)
        }


def test_an_outcome_counts_from_the_batch_on_that_may_know_it():
    """Batch m follows from the outcomes up to m - 1 - lag: a later one that differs changes it not,
    and one of these does.
    """

    def choose(changed, batch, lag=2):
        prompts = make_prompts(40, difficulties=["a", "b"] * 20)
        curriculum = make_curriculum("similar", prompts, batch_size=4, lag=lag)
        for step in range(1, batch):
            curriculum.propose(step)
        for step in range(1, batch):
            rates = np.full(40, 0.5 if step != changed else 0.0)
            if step <= batch - 1:
                curriculum.observe(step, earn(curriculum, step, rates))
        return curriculum.propose(batch).tolist()

    # Batches before were chosen without outcomes here, so only the last choice can differ.
    base = choose(changed=None, batch=9)
    assert choose(changed=7, batch=9) == choose(changed=8, batch=9) == base
    assert choose(changed=6, batch=9) != base


@given(
    entry=st.sampled_from(ENTRIES),
    lag=st.integers(0, 3),
    stop=st.integers(1, 20),
    drop=st.integers(0, 3),
)
@settings(max_examples=12, deadline=None)
def test_a_resumed_run_chooses_what_an_uninterrupted_one_does(entry, lag, stop, drop):
    """Also the batches that were in flight: the checkpoint holds none of their trajectories."""
    rates, prompts = draw_rates(24), make_prompts(24)
    whole = run_steps(make_curriculum(entry, prompts, batch_size=3, lag=lag), rates, 24, lead=lag)
    first = make_curriculum(entry, prompts, batch_size=3, lag=lag)
    run_steps(first, rates, stop, lead=lag)
    state = copy.deepcopy(first.state_dict())
    # The first run goes on for a while before it is killed: nothing of that is in the state.
    run_steps(first, rates, drop, lead=lag, first=stop + 1, chosen={stop + lag: []})
    second = make_curriculum(entry, prompts, batch_size=3, lag=lag)
    second.load_state_dict(state)
    resumed = {batch: second.propose(batch).tolist() for batch in range(stop + 1, stop + lag + 1)}
    resumed = run_steps(
        second, rates, 24 - stop, lead=lag, first=stop + 1, chosen={stop + lag: []} | resumed
    )
    for batch in range(stop + 1, 24 + lag + 1):
        assert resumed[batch] == whole[batch], batch


def test_no_prompt_is_in_two_batches_of_unknown_outcome():
    curriculum = make_curriculum("learnability", make_prompts(40), batch_size=4, lag=3)
    chosen = run_steps(curriculum, np.full(40, 0.5), 60, lead=3)
    for batch in range(1, 60):
        ahead = [row for later in range(batch, batch + 4) for row in chosen[later]]
        assert len(set(ahead)) == len(ahead)


def test_with_few_prompts_the_same_ones_come_again():
    curriculum = make_curriculum("learnability", make_prompts(5), batch_size=4, lag=3)
    chosen = run_steps(curriculum, np.full(5, 0.5), 20, lead=3)
    assert all(len(set(rows)) == 4 for rows in chosen.values())


def test_fewer_prompts_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="3 prompts do not fill a batch of 4: use a smaller"):
        make_curriculum("uniform", make_prompts(3), batch_size=4)


def test_a_selector_that_repeats_a_row_ends_the_run_by_name():
    class Twice(Stubborn):
        def choose(self, batch, count, free):
            return np.zeros(count, dtype=np.int64)

    curriculum = make_curriculum("uniform", make_prompts(9), batch_size=2)
    curriculum.selector = Twice()
    curriculum.selector.begin(make_prompts(9), 1)
    with pytest.raises(RuntimeError, match="selector stubborn has to choose different rows"):
        curriculum.propose(1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"entry": "similar"}, "written with the selector learnability, not similar"),
        ({"print_": "g"}, "another training set .of 9 prompts; this one has 9"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(other, message):
    state = make_curriculum("learnability", make_prompts(9), batch_size=2).state_dict()
    entry = other.pop("entry", "learnability")
    curriculum = make_curriculum(entry, make_prompts(9), batch_size=2, **other)
    with pytest.raises(CurriculumMismatch, match=message) as caught:
        curriculum.load_state_dict(state)
    assert "\n" not in str(caught.value)


def make_proposal(rows):
    flags = np.zeros(len(rows), dtype=bool)
    return Proposal(np.array(rows), flags, flags, np.full(len(rows), np.nan))


def test_a_reward_that_is_no_pass_rate_is_refused_with_the_setting():
    arguments = (make_proposal([5, 8]), [0, 1], np.array([1.0, -1.0]))
    more = (np.array([3, 4]), np.array([0, 0]))
    with pytest.raises(RewardOutOfRange, match="solved_at=null: prompt 8 .* a reward of -1") as e:
        make_outcomes(*arguments, *more, None)
    assert "\n" not in str(e.value)
    outcomes = make_outcomes(*arguments, *more, 0.5)
    assert [one.successes.tolist() for one in outcomes] == [[1.0], [0.0]]


def test_what_has_no_reward_counts_neither_as_solved_nor_as_failed():
    rewards = np.array([1.0, np.nan, np.nan])
    outcomes = make_outcomes(
        make_proposal([5, 8, 9]), [0, 0, 1], rewards, np.array([3, 4, 5]), np.array([2, 1, 1]), None
    )
    assert [one.successes.tolist() for one in outcomes] == [[1.0], [], []]
    assert [one.version for one in outcomes] == [1, 1, -1]
    assert outcomes[0].lengths.tolist() == [3, 4]


def test_the_metrics_say_what_the_choice_is_worth():
    rates = np.array([0.0] * 45 + [0.5] * 15)
    curriculum = make_curriculum("learnability", make_prompts(60), batch_size=6, floor_share=0.2)
    seen = []
    for batch in range(1, 81):
        curriculum.propose(batch)
        seen.append(curriculum.observe(batch, earn(curriculum, batch, rates)))
    last = seen[40:]

    def mean(name):
        return np.mean([metrics[name] for metrics in last if name in metrics])

    assert mean("curriculum/signal_share/selected") > 0.8 > mean("curriculum/signal_share/floor")
    assert seen[-1]["curriculum/coverage"] == 1.0
    assert mean("curriculum/calibration_gap") < 0.15
    assert seen[0]["curriculum/effective_share"] == 1.0 > seen[-1]["curriculum/effective_share"]
    assert seen[-1]["curriculum/longest_wait"] <= 60 / (0.2 * 6)


def test_the_effective_share_is_one_where_nothing_is_preferred():
    assert compute_effective_share(np.zeros(4)) == 0.0
    assert compute_effective_share(np.array([1, 1, 0, 0])) == 1.0
    assert compute_effective_share(np.array([3, 3, 3])) == pytest.approx(1.0)
    assert compute_effective_share(np.array([4, 0, 0, 0])) == pytest.approx(0.25)
