"""A value of the wrong kind is found by verl's own defaults, whichever setting it is."""

import random

import pytest
from omegaconf import OmegaConf, open_dict

from tests.helpers.thinned import thin_out_rows
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.verl_adapter.checks import value_checks
from verl_pipeline.verl_adapter.checks.check_list import examine_run

LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr("verl.utils.device.get_device_name", lambda: "cpu")


def test_a_text_is_refused_for_any_number_or_switch_of_verls(composed):
    config = composed()
    chosen = random.Random(5).sample(sorted(value_checks._load_defaults()), 60)
    assert list(value_checks.check_numbers(config)) == []
    for field in chosen:
        if OmegaConf.select(config, field) is None:
            continue
        changed = config.copy()
        with open_dict(changed):
            OmegaConf.update(changed, field, "two")
        assert any(
            str(finding).startswith(f"{field}=two: must be ")
            for finding in value_checks.check_numbers(changed)
        ), field


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.rollout.top_p=0.95",  # the default is the whole number 1
        "actor_rollout_ref.actor.entropy_coeff=0.001",  # 0
        "algorithm.rollout_correction.rollout_is_threshold=0.5_2.0",  # a range
        "trainer.val_before_train=0",
        "data.val_max_samples=null",
    ],
)
def test_what_verl_can_compute_with_passes(composed, override):
    assert list(value_checks.check_numbers(composed(override))) == []


@pytest.mark.parametrize(
    ("override", "message"),
    thin_out_rows(
        [
            ("trainer.nnodes=1.5", "trainer.nnodes=1.5: must be a whole number"),
            ("trainer.nnodes=True", "trainer.nnodes=True: must be a whole number"),
            ("data.train_batch_size=null", "data.train_batch_size=None: must be a whole number"),
            ("+data.gen_batch_size=x", "data.gen_batch_size=x: must be a whole number, or null"),
            ("trainer.save_freq=[1]", "trainer.save_freq=[1]: must be a number"),
            ("algorithm.gamma=nan", "algorithm.gamma=nan: must be a number"),
            ("algorithm.adv_estimator=grop", "algorithm.adv_estimator=grop: unknown; did you mean"),
            (f"{LOSS}=vanila", f"{LOSS}=vanila: unknown; did you mean vanilla?"),
            ("trainer.logger=[consle]", "trainer.logger=consle: unknown; did you mean console?"),
            ("trainer.resume_mode=autp", "trainer.resume_mode=autp: unknown; did you mean auto?"),
            (
                "actor_rollout_ref.rollout.name=???",
                "actor_rollout_ref.rollout.name: has no default",
            ),
            ("data.seed=${no.such}", "data.seed: Interpolation key 'no.such' not found; correct"),
        ],
        keep=5,
    ),
)
def test_a_wrong_value_is_one_line(composed, override, message):
    (line,) = examine_run(composed(override)).errors
    assert line.startswith(message)


def test_a_value_that_cannot_be_read_hides_no_other_error(composed):
    report = examine_run(
        composed(
            "actor_rollout_ref.rollout.name=???",
            "trainer.v1.one_off_pipeline.staleness=${no.such}",
            "data.seed=${no.other}",
            "trainer.save_freq=???",
            "trainer.n_gpus_per_node=two",
            "algorithm.adv_estimator=grop",
            "data.train_files=/no/such.parquet",
            "reward.custom_reward_function.name=compute_scor",
            "trainer.default_local_dir=''",
        )
    )
    starts = [
        "actor_rollout_ref.rollout.name: has no default",
        "data.seed: Interpolation key 'no.other' not found",
        "trainer.save_freq: has no default",
        f"{PIPELINE_KEY}.staleness: Interpolation key 'no.such' not found",
        "trainer.n_gpus_per_node=two: must be a whole number",
        "algorithm.adv_estimator=grop: unknown",
        "reward.custom_reward_function.name=compute_scor: ",
        "data.train_files=/no/such",
        "trainer.default_local_dir: is empty",
    ]
    assert [any(line.startswith(start) for line in report.errors) for start in starts] == [True] * 9
    assert len(report.errors) == len(starts), report.errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer=5", "trainer=5: must be a section of settings"),
        ("actor_rollout_ref.rollout=vllm", "actor_rollout_ref.rollout=vllm: must be a section"),
        ("trainer.nnodes=3000000000", "trainer.nnodes=3000000000: must be at most 2147483647"),
        ("trainer.nnodes=False", "trainer.nnodes=False: must be a whole number"),
        ("trainer.resume_from_path=''", "trainer.resume_from_path: is empty; name a file or fol"),
        ("data.seed=${oc.env:NO_SUCH_VARIABLE}", "data.seed: \"Environment variable 'NO_SUCH_VA"),
        ("+data.text='a\nb\x1b[1m'", ""),
    ],
)
def test_a_value_that_no_check_can_use_is_one_line(composed, override, message):
    lines = examine_run(composed(override)).errors
    assert [line[: len(message)] for line in lines] == [message] * bool(message)


def test_a_model_that_registers_more_is_trusted(composed):
    own = ("algorithm.adv_estimator=mine", "actor_rollout_ref.model.external_lib=json")
    assert not list(value_checks.check_names(composed(*own)))


def test_all_errors_of_a_command_come_at_once(composed):
    report = examine_run(
        composed(
            "trainer.nnodes=two",
            "algorithm.adv_estimator=grop",
            f"+{PIPELINE_KEY}.stalness=0",
            f"+{PIPELINE_KEY}.deadlines.bach_s=1",
            "data.train_files=/no/such.parquet",
            "data.val_files=/no/other.parquet",
            "reward.custom_reward_function.name=compute_scor",
            "trainer.device=cuda",
        )
    )
    starts = [
        "trainer.nnodes=two",
        "algorithm.adv_estimator=grop",
        f"{PIPELINE_KEY}.deadlines.bach_s: ",
        f"{PIPELINE_KEY}.stalness: ",
        "reward.custom_reward_function.name=compute_scor: ",
        "data.train_files=/no/such",
        "data.val_files=/no/other",
        "trainer.device=cuda",
    ]
    assert len(report.errors) == len(starts)
    for line, start in zip(report.errors, starts, strict=True):
        assert line.startswith(start)
