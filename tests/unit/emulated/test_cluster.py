"""What the processes of an emulated run know: the same lengths and times as the planner's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.emulated_runs import make_run
from tests.helpers.planner_cases import make_small
from verl_pipeline.emulated.cluster import check_size, read_cluster
from verl_pipeline.emulated.costs import TrainerCosts
from verl_pipeline.emulated.identity import (
    Alphabet,
    make_prompt,
    name_sample,
    read_row,
    read_sample,
)
from verl_pipeline.emulated.trace import write_trace
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.workload import draw_workload


def test_a_run_travels_as_a_file(tmp_path):
    run = make_run(tmp_path, slow_replicas={1: 2.5}, dead_replicas=(0,))
    run.write(tmp_path / "cluster.json")
    again = read_cluster(tmp_path / "cluster.json")
    assert again == run
    assert 0.0 <= again.open_clock().now() < 100.0


def test_lengths_are_the_planners(tmp_path):
    run = make_run(tmp_path, seed=3)
    workload = draw_workload(run.cluster, 5, 3)
    assert (run.workload.responses == workload.responses[:3]).all()
    rows, samples = np.arange(9).repeat(2), np.tile([0, 1], 9)
    assert run.count_tokens(run.find_places(rows, samples)) == workload.tokens[:3].sum()
    assert run.find_place(4, 1) == (1, 3)


@given(st.integers(0, 3), st.integers(6, 40))
def test_recorded_lengths_follow_each_other_through_the_batches(tmp_path_factory, seed, count):
    folder = tmp_path_factory.mktemp("run")
    lengths = np.arange(1, count + 1) - 0.5  # whole tokens are 1 to count
    write_trace(folder / "lengths.npy", lengths)
    run = make_run(folder, seed=seed, trace=str(folder / "lengths.npy"))
    expected = [(seed * 6 + place) % count + 1 for place in range(3 * 6)]
    assert run.workload.responses.ravel().tolist() == expected
    drawn = draw_workload(run.cluster, 3, seed)
    assert (run.workload.prompts == drawn.prompts).all()
    assert (run.workload.rewards == drawn.rewards).all()
    assert run.longest_response == run.compress(count - 0.5)
    # A token takes the trainer as long as in the profile.
    plain, sampling = make_small(), run.cluster.sampling
    for tokens in (10.0, 300.0):
        assert run.cluster.training.compute_seconds(
            tokens, sampling.mean_tokens, 2
        ) == pytest.approx(plain.training.compute_seconds(tokens, plain.sampling.mean_tokens, 2))


@pytest.mark.parametrize("training", [{"log_prob_s": 12.0}, {"log_prob_s": 0.0}])
@pytest.mark.parametrize("is_bypassed", [True, False])
def test_the_trainers_passes_sum_to_the_planners(tmp_path, training, is_bypassed):
    changes = {f"training__{name}": value for name, value in training.items()}
    run = make_run(tmp_path, profile=changes, trainer_gpus=3)
    costs = TrainerCosts(run, is_bypassed)
    profile, tokens = run.cluster, 12_345.0
    expected = profile.training.compute_seconds(tokens, profile.sampling.mean_tokens, 3)
    log_probs = costs.compute_log_probs(tokens)
    assert log_probs + costs.compute_update(tokens) == pytest.approx(expected)
    assert bool(log_probs) is bool(training["log_prob_s"] and not is_bypassed)


def test_flops_split_into_passes(tmp_path):
    changes = {
        "training__update_s": 0,
        "training__parameters": 1e9,
        "training__flops_per_gpu": 1e12,
        "training__utilisation": 0.5,
        "training__log_prob_passes": 2,
    }
    costs = TrainerCosts(make_run(tmp_path, profile=changes), is_bypassed=False)
    assert costs.compute_update(100.0) == pytest.approx(2 * costs.compute_log_probs(100.0))


@given(st.integers(0, 675), st.integers(2, 40))
def test_a_response_names_its_sample(sample, tokens):
    letters = [chr(ord("a") + number) for number in range(26)]
    alphabet = Alphabet(["", "assistant\n", "row 5: answer", *letters])
    response = alphabet.make_response(sample, tokens)
    assert len(response) == tokens
    assert alphabet.read_prompt([0, 2, 1, *response]) == (5, sample)
    assert alphabet.read_prompt([0, 2, 1]) == (5, None)
    assert read_sample(name_sample(sample)) == sample


@given(st.integers(0, 10**6))
def test_a_prompt_names_its_row(row):
    assert read_row(f"user\n{make_prompt(row)}\nassistant\n") == row


def test_another_data_set_is_refused():
    with pytest.raises(ValueError, match="of its own data set only, not 'What is 2"):
        read_row("What is 2 + 2?")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gpus": 8192}, "gpus=8192: one process emulates all replicas, at most 4096 GPUs; "),
        ({"sampling__samples": 700}, "sampling.samples=700: the emulated responses tell at most"),
    ],
)
def test_what_a_machine_cannot_hold_is_refused(changes, line):
    with pytest.raises(ProfileError) as caught:
        check_size(make_small(**changes))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
