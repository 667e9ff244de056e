"""Profiles: those of the package, and what is refused, in one line with field and fix."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.planner_cases import make_content, make_small
from verl_pipeline.planner.distributions import Distribution, read_distribution
from verl_pipeline.planner.measurements import (
    Measurements,
    fit_decoding,
    fit_decoding_line,
    make_profile_from_measurements,
)
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.profile_reader import (
    find_profile,
    list_fields,
    list_profiles,
    load_profile,
    make_profile,
)

ORIGINS = ("published", "derived", "fitted", "assumed", "as decode_base_s")
NEEDED = [
    *("deepcoder_math_8xa100", "deepcoder_code_8xa100", "deepcoder_14b_32xh100"),
    *("verl_dapo_7b_16xh20", "dense_32b_64xh100", "moe_30b_128xh20", "reward_bound_8xh100"),
    *("training_bound_8xh100", "small_cluster_2xa100"),
]


def test_the_package_has_the_profiles():
    assert set(NEEDED) <= set(list_profiles())


@pytest.mark.parametrize("name", list_profiles())
def test_every_number_of_a_profile_has_a_source(name):
    content = yaml.safe_load(find_profile(Path(name)).read_text())
    assert load_profile(Path(name)).name == name
    given = {
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in content.items()
        for key in (value if isinstance(value, dict) else [""])
    } - {"name", "description", "gpu", *(f"sources.{key}" for key in content["sources"])}
    assert given == set(content["sources"])
    assert [text for text in content["sources"].values() if not text.startswith(ORIGINS)] == []


@pytest.mark.parametrize(
    ("name", "published_s"),
    [
        ("deepcoder_code_8xa100", 880),
        ("deepcoder_math_8xa100", 755),
        ("verl_dapo_7b_16xh20", 749),
        ("moe_30b_128xh20", 497.89),
        ("deepcoder_14b_32xh100", 2000),
    ],
)
def test_sync_takes_the_published_step(name, published_s):
    planner = Planner(load_profile(Path(name)), seeds=1)
    assert planner.sync.step_s == pytest.approx(published_s, rel=0.03)


def test_every_field_says_what_it_means():
    fields = list_fields()
    assert len(fields) > 30
    assert [
        name for name, declared in fields if name != "sources" and not declared.get("meaning")
    ] == []


WRONG = [
    ({"sampling__prompts": 0}, "sampling.prompts=0: must be a number at least 1"),
    ({"sampling__prompts": 2.5}, "sampling.prompts=2.5: must be a whole number"),
    ({"sampling__prompts": True}, "sampling.prompts=True: must be a whole number"),
    ({"sampling__decode_base_s": 0}, "sampling.decode_base_s=0: must be a number at least 1e-09"),
    ({"training__update_s": -3}, "training.update_s=-3: must be a number at least 0"),
    ({"training__update_s": "5"}, "training.update_s='5': must be a number"),
    ({"training__update_s": 0.0}, "training.update_s is missing: give"),
    ({"training__parameters": 1e9}, "training.parameters: training.update_s is given, too"),
    ({"training": {"gpus": 2, "parameters": 1e9}}, "training.flops_per_gpu is missing"),
    ({"sampling__prefill_tokens_per_s": 1e-320}, "sampling.prefill_tokens_per_s=1e-320: must"),
    ({"weights__load_s": math.inf}, "weights.load_s=inf: must be a number"),
    ({"weights__load_s": math.nan}, "weights.load_s=nan: must be a number"),
    ({"weights__lod_s": 1}, "weights.lod_s: no field of a profile; did you mean weights.load_s?"),
    ({"reward": {"seconds": 1}}, "reward.workers is missing: give it (workers"),
    ({"reward__streamed_in_sync": 1}, "reward.streamed_in_sync=1: must be true or false"),
    ({"gpus": 10**400}, "gpus=10"),
    ({"name": ""}, "name='': must be a text"),
    ({"sampling": []}, "sampling: must be names with values"),
    ({"sampling__kv_tokens": 900}, "sampling.kv_tokens=900: does not hold the longest trajectory"),
    ({"sampling__tensor_parallel": 8}, "sampling.tensor_parallel=8: a replica needs more GPUs"),
    ({"training__fewest_gpus": 8}, "training.fewest_gpus=8: the trainer needs more GPUs"),
    ({"sampling__samples": 4096, "sampling__prompts": 60_000}, "sampling.samples=4096: with 60000"),
]  # fmt: skip
LOGNORMAL = {"kind": "lognormal", "mean": 5, "sigma": 1, "cap": 9}
QUANTILES = {"kind": "quantiles", "shares": [0, 0.5, 1], "values": [1, 2, 3]}
LENGTHS = [
    ({"kind": "lognormal", "mean": 5, "sigma": 1}, "without it the distribution never ends"),
    (LOGNORMAL | {"cap": math.inf}, "cap=inf: the distribution never ends"),
    (LOGNORMAL | {"cap": None}, "cap=None: the distribution never ends"),
    (LOGNORMAL | {"mean": 0}, "mean=0: must be a number above 0"),
    (LOGNORMAL | {"sigma": 99}, "sigma=99: must be a number"),
    (QUANTILES | {"shares": [0, 0.5, 0.9]}, "end with 1; else the distribution never ends"),
    (QUANTILES | {"values": [1, 2]}, "shares: 3 shares for 2 values"),
    (QUANTILES | {"shares": [0, 0, 1]}, "shares: each must be larger"),
    (QUANTILES | {"values": [1, 3, 2]}, "values: none may be smaller"),
    ({"kind": "empirical", "values": []}, "values: must be a list of numbers"),
    ({"kind": "empirical", "values": [5, 0]}, "values[1]=0: must be a number at least 1"),
    ({"kind": "constant", "value": 5, "mean": 3}, "mean: a constant distribution has value only"),
    ({"kind": "pareto"}, "kind='pareto': must be one of constant, lognormal"),
    ("long", "must be a number, or names with values"),
    (True, "must be a number, or names with values"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *WRONG,
        *(
            ({"sampling__response_tokens": content}, "sampling.response_tokens")
            for content, _words in LENGTHS
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(changes, words):
    with pytest.raises(ProfileError) as caught:
        make_profile(make_content(**changes))
    assert str(caught.value).startswith(words[:60]) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("content", "words"), LENGTHS)
def test_a_distribution_is_refused_with_its_fix(content, words):
    with pytest.raises(ProfileError) as caught:
        read_distribution(content, "lengths", 1.0)
    assert words in str(caught.value)


@pytest.mark.parametrize("field", [name for name, declared in list_fields() if declared])
def test_a_missing_field_is_named_or_has_a_default(field):
    content = make_content()
    section, _, name = field.rpartition(".")
    place = content[section] if section in content else content
    if (name or field) not in place:
        return  # has a default, as the small profile shows
    del place[name or field]
    try:
        make_profile(content)
    except ProfileError as error:
        assert str(error).startswith(f"{field} is missing: give")


KINDS = [
    Distribution("constant", mean=7.0),
    Distribution("lognormal", mean=300.0, sigma=1.2, cap=900.0),
    Distribution("empirical", values=(1.0, 5.0, 5.0, 90.0)),
    Distribution("quantiles", values=(1.0, 10.0, 400.0), shares=(0.0, 0.7, 1.0)),
]


@pytest.mark.parametrize("distribution", KINDS, ids=lambda kind: kind.kind)
def test_draws_have_the_expectation_and_end(distribution):
    drawn = distribution.draw(np.random.default_rng(1), 200_000)
    assert drawn.max() <= distribution.largest
    assert drawn.mean() == pytest.approx(distribution.expectation, rel=0.01)
    assert distribution.scale(2.0).draw(np.random.default_rng(1), 1000).max() <= max(
        distribution.largest * 2, distribution.cap
    )


@given(st.floats(1e-4, 1.0), st.floats(0.0, 0.01), st.lists(st.integers(1, 256), min_size=2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_line_through_measured_steps_is_found(base, slope, running):
    times = [base + slope * count for count in running]
    found = fit_decoding_line(running, times)
    assert found[0] > 0 and found[1] >= 0
    if len(set(running)) > 1:
        assert found == pytest.approx((base, slope), rel=1e-3, abs=1e-5)


@given(st.lists(st.tuples(st.integers(1, 256), st.floats(1e-4, 1.0)), min_size=1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_line_is_never_negative(pairs):
    base, slope = fit_decoding_line(*map(list, zip(*pairs, strict=True)))
    assert base > 0 and slope >= 0


def measure(**changes):
    arguments = dict(
        name="run", gpus=8, gpus_per_node=8, prompts=4, samples=2, response_tokens=[5, 50, 500],
        prompt_tokens=[10, 20], reward_s=[0.1, 3.0], reward_workers=4, slots=16, tensor_parallel=1,
        running=[1, 8, 16], token_s=[0.011, 0.018, 0.026], prefill_tokens_per_s=5000.0,
        trainer_gpus=4, update_s=[10.0, 12.0], log_prob_s=[2.0], publish_s=[0.5], load_s=[0.25],
        switch_s=3.0,
    )  # fmt: skip
    return make_profile_from_measurements(Measurements(**{**arguments, **changes}))


def test_measurements_make_a_profile():
    profile = measure()
    assert isinstance(profile, Profile)
    assert profile.sampling.decode_base_s == pytest.approx(0.01)
    assert profile.sampling.decode_per_sequence_s == pytest.approx(0.001)
    assert profile.training.update_s == 11.0 and profile.weights.load_s == 0.25
    assert profile.sampling.response_tokens.largest == 500
    assert Planner(profile, seeds=1).sync.step_s > 11.0 / 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"update_s": []}, "update_s: no measured value"),
        ({"load_s": [-1.0]}, "load_s=-1: must be finite and at least 0"),
        ({"token_s": [math.nan, 1.0, 1.0]}, "token_s=nan"),
        ({"running": [1]}, "token_s: 3 values for 1 of running"),
        ({"response_tokens": [0.0]}, "response_tokens=0: must be finite and at least 1"),
    ],
)
def test_wrong_measurements_are_refused_by_name(changes, words):
    with pytest.raises(ProfileError, match=words):
        measure(**changes)


def test_decoding_is_fitted_to_a_published_time_of_sampling():
    profile = fit_decoding(make_small(), 50.0)
    ratio = profile.sampling.decode_base_s / profile.sampling.decode_per_sequence_s
    assert ratio == pytest.approx(10.0)
    sync = Planner(profile, seeds=3).sync.step_s
    assert sync == pytest.approx(50.0 + 15.0 + 4.0, rel=0.15)  # and what rewards add
    with pytest.raises(ProfileError, match="prefill alone takes"):
        fit_decoding(make_small(sampling__prefill_tokens_per_s=0.1), 5.0)


def test_tensor_parallel_speeds_a_replica_up_by_its_exponent():
    changes = {"sampling__measured_tensor_parallel": 1, "sampling__tensor_parallel_scaling": 0.5}
    profile = make_small(sampling__tensor_parallel=4, **changes)
    assert profile.sampling.speed == pytest.approx(2.0)
    assert make_small(sampling__tensor_parallel=4).sampling.speed == 1.0


def test_parameters_stand_for_seconds():
    profile = make_small(
        training={
            "gpus": 4,
            "parameters": 1e9,
            "flops_per_gpu": 1e14,
            "utilisation": 0.25,
            "scaling": 0.5,
        }
    )
    # (8 + 2) operations a parameter and token
    assert profile.training.compute_seconds(1e6, 1.0, 4) == pytest.approx(1e16 / 1e14)
    assert profile.training.compute_seconds(1e6, 1.0, 1) == pytest.approx(200.0)
