"""Checks before a run: each error is one line with stage, setting, cause and remedy."""

import json
import shutil

import pytest

from tests.helpers.thinned import thin_out_rows
from verl_pipeline.recipes.deepcoder.data import parquet_schema
from verl_pipeline.recipes.deepcoder.stages.stage_checks import (
    StageError,
    list_data_files,
    plan_stages,
)
from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    STAGES_FILE,
    load_hardware,
    load_runs,
    select_run,
)
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import (
    OverrideError,
    RunSettings,
    build_overrides,
    compose_config,
    split_overrides,
)
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.pipeline_config import load_pipeline_config
from verl_pipeline.trainer.schedule import Dial
from verl_pipeline.verl_adapter.checks.check_list import examine_run
from verl_pipeline.verl_adapter.entry.run_plan import build_plan


def read_refusal(settings, **kwargs):
    with pytest.raises(StageError) as error:
        plan_stages(settings, **kwargs)
    text = str(error.value)
    assert all(line.startswith("stage ") for line in text.splitlines())
    return text


def test_every_stage_is_composed_with_its_own_lengths_and_batch(make_settings):
    first, second = plan_stages(make_settings())
    for plan, batch, length, last in ((first, 4, 8, 4), (second, 6, 16, 8)):
        config = plan.config
        assert (
            config.data.train_batch_size,
            config.actor_rollout_ref.actor.ppo_mini_batch_size,
        ) == (batch, batch)
        assert (
            config.data.max_response_length,
            config.actor_rollout_ref.rollout.max_model_len,
        ) == (
            length,
            64 + length,
        )
        assert config.trainer.total_training_steps == last
        assert config.trainer.default_local_dir.endswith(f"output/{plan.name}/checkpoints")
        assert config.trainer.resume_mode == "auto"
        assert [note.rpartition("/")[2].split(",")[0] for note in plan.notes] == [
            "train.parquet was not written by the recipe",
            "heldout.parquet was not written by the recipe",
        ]


TWO_DEVICES = {"nodes": 1, "devices": 2}
ONE_DEVICE = {"nodes": 1, "devices": 1}


@pytest.mark.parametrize(
    ("second", "message"),
    thin_out_rows(
        [
            ({"response_length": 200}, "264 tokens, above the model's 256 positions"),
            (
                {"overrides": ["actor_rollout_ref.actor.ppo_mini_batch_size=0"]},
                "ppo_mini_batch_size=0: set it to 1 or more",
            ),
            (
                {"samples": 8, "pools": {"train": TWO_DEVICES, "rollout": ONE_DEVICE}},
                "trainer.nnodes x n_gpus_per_node=2: 1 in stage first",
            ),
            (
                {"pools": {"train": ONE_DEVICE, "rollout": {"nodes": 1, "devices": 4}}},
                "5 together; the hardware has 4",
            ),
            (
                {"pools": {"train": ONE_DEVICE, "rollout": {"nodes": 1, "devices": 5}}},
                "n_gpus_per_node=5: the hardware has 4",
            ),
            (
                {"tokens_per_device": 79},
                "ppo_max_token_len_per_gpu=79: a micro-batch has room for 79 tokens, below the 80 "
                "of prompt + response",
            ),
            (
                {"samples": 3, "overrides": ["actor_rollout_ref.rollout.n=1"]},
                "must divide the 6 trajectories",
            ),
            ({"overrides": ["trainer.save_freq=-1"]}, "trainer.save_freq=-1"),
            ({"overrides": ["trainer.logger=[console]"]}, "trainer.logger=['console']"),
            (
                {"overrides": ["actor_rollout_ref.actor.checkpoint.async_save=True"]},
                "async_save=True",
            ),
            (
                {"overrides": ["actor_rollout_ref.actor.checkpoint.save_contents=[model]"]},
                "lacks optimizer",
            ),
            (
                {"overrides": ["trainer.v1.one_off_pipeline.filters=[overlogn]"]},
                "did you mean overlong?",
            ),
            (
                {"overrides": ["trainer.v1.one_off_pipeline.stalenes=1"]},
                "stalenes=1: unknown key; did you mean trainer.v1.one_off_pipeline.staleness?",
            ),
            (
                {"overrides": ["actor_rollout_ref.rollout.max_model_len=70"]},
                "max_model_len=70: 80 are needed",
            ),
            (
                {"overrides": ["actor_rollout_ref.actor.optim.lr=1e-3"]},
                "actor.optim.lr=0.001: 1e-06 in stage first",
            ),
            ({"overrides": ["data.seed=2"]}, "data.seed=2: 1 in stage first"),
            (
                {"batch": 24, "mini_batch": 24},
                "data.train_batch_size=24: data.train_files have only 22 rows",
            ),
        ],
        keep=5,
    ),
)
def test_an_impossible_second_stage_is_refused_before_the_first_starts(
    make_settings, change_stages, second, message
):
    text = read_refusal(make_settings(stages=change_stages(second=second)))
    assert text.startswith("stage second: ") and message in text


def test_the_token_limit_counts_all_devices_of_a_sequence(make_settings, change_stages):
    wide = {"tokens_per_device": 40, "pools": {"train": TWO_DEVICES, "rollout": ONE_DEVICE}}
    narrow = {**wide, "tokens_per_device": 39}
    shared = {"sequence_parallel": 2, "overrides": []}
    padding = ["actor_rollout_ref.model.use_remove_padding=True"]
    both = change_stages(first=wide, second={**wide, "mini_batch": 6})
    assert len(plan_stages(make_settings(stages=both, hardware=shared, overrides=padding))) == 2
    text = read_refusal(
        make_settings(
            stages=change_stages(first=wide, second=narrow), hardware=shared, overrides=padding
        )
    )
    assert (
        "ppo_max_token_len_per_gpu=39: a micro-batch has room for 78 tokens, below the 80" in text
    )
    assert "ppo_max_token_len_per_gpu=40 or more" in text


def test_overrides_are_checked_like_the_files(make_settings):
    assert "above the model's 256 positions" in read_refusal(
        make_settings(overrides=["data.max_prompt_length=250"])
    )


def test_data_of_another_version_is_refused(make_settings, tmp_path, monkeypatch, tiny_folder):
    data = tmp_path / "data"
    shutil.copytree(tiny_folder / "data", data)
    row = {name: None for name in parquet_schema.COLUMNS}
    monkeypatch.setattr(parquet_schema, "SCHEMA_VERSION", parquet_schema.SCHEMA_VERSION + 1)
    parquet_schema.write_parquet([row], data / "train.parquet", "hash")
    monkeypatch.undo()
    text = read_refusal(make_settings(overrides=[f"data.train_files={data / 'train.parquet'}"]))
    assert "of the recipe, this is" in text


def test_missing_data_is_refused_but_only_noted_in_a_dry_run(make_settings, tmp_path):
    settings = make_settings(overrides=[f"data.train_files={tmp_path}/none.parquet"])
    assert (
        "none.parquet: no such file; python -m verl_pipeline.recipes.deepcoder.prepare"
        in read_refusal(settings)
    )
    assert all(
        "none.parquet does not exist yet" in plan.notes[0]
        for plan in plan_stages(settings, dry_run=True)
    )


def test_a_model_on_the_hub_is_only_noted_in_a_dry_run(make_settings, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = make_settings(overrides=["actor_rollout_ref.model.path=nobody/no-such-model"])
    assert all(
        any("nobody/no-such-model: not in the hub's cache" in note for note in plan.notes)
        for plan in plan_stages(settings, dry_run=True)
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.default_local_dir=x", "the stage runner sets trainer.default_local_dir itself"),
        ("+data.stream_start=3", "the stage runner sets data.stream_start itself"),
        ("data.custom_cls.path=x", "the stage runner sets data.custom_cls itself"),
        ("+grpo_plus=released", "give reproduce=released"),
        ("reproduce=relesed", "did you mean released?"),
        ("--batch", "key=value"),
    ],
)
def test_overrides_that_only_the_runner_may_set_are_refused(override, message):
    with pytest.raises(OverrideError) as error:
        split_overrides([override], "ours")
    assert message in str(error.value)


def test_the_variant_of_grpo_plus_is_an_option_or_an_override():
    assert split_overrides(["a=1", "reproduce=released", "~b"], "ours") == (
        "released",
        ["a=1", "~b"],
    )
    assert split_overrides([], "described") == ("described", [])


def test_an_override_of_an_unknown_key_is_refused(make_settings):
    text = read_refusal(make_settings(overrides=["trainer.nodes=2"]))
    assert text.startswith(
        "stage first: trainer.nodes=2: unknown key; did you mean trainer.nnodes?"
    )


@pytest.mark.slow
def test_patterns_and_lists_of_files_are_the_files_that_verl_reads(make_settings, tiny_folder):
    data = tiny_folder / "data"
    names = [f"{data}/tr*.parquet", f"[{data}/train.parquet]"]
    for name in names:
        first, *_ = plan_stages(make_settings(overrides=[f"data.train_files={name}"]))
        assert list_data_files(first.config, "train") == [data / "train.parquet"]
    text = read_refusal(make_settings(overrides=[f"data.train_files={data}/z*.parquet"]))
    assert "z*.parquet: no such file" in text
    settings = make_settings(overrides=["data.train_files=hdfs://host/train.parquet"])
    assert "hdfs:/host/train.parquet: no such file" in read_refusal(settings)


@pytest.mark.parametrize("name", ["32xH100", pytest.param("8xA100", marks=pytest.mark.slow)])
def test_the_profiles_pass_the_checks_of_the_training_command(tmp_path, monkeypatch, name):
    """As ``verl_pipeline.main --check`` makes them, with data and a model's configuration there."""
    hardware = load_hardware(name)
    run = select_run(load_runs(STAGES_FILE), hardware.run, STAGES_FILE)
    for file in ("train.parquet", "heldout.parquet"):
        tiny_run.write_data(tmp_path / file, 130)
    tiny_run.write_model(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 131072}))
    monkeypatch.setattr("verl.utils.device.get_device_name", lambda: "cuda")
    settings = RunSettings(run, hardware, str(tmp_path / "model"), tmp_path, tmp_path / "output")
    for plan in plan_stages(settings, dry_run=True):
        report = examine_run(plan.config)
        assert report.errors == [] and report.out_of_reach == []
        described = build_plan(plan.config, report)
        assert {"pools", "batches", "reward", "data", "model"} <= set(described)
        assert f"{plan.config.data.train_batch_size} prompts x" in described["batches"][0]


@pytest.mark.parametrize("name", ["32xH100", "8xA100"])
@pytest.mark.parametrize(
    "variant, dial",
    [("ours", Dial("in_flight", 2)), ("described", Dial()), ("released", Dial())],
)
def test_a_reproduction_keeps_the_original_schedule(tmp_path, name, variant, dial):
    hardware = load_hardware(name)
    run = select_run(load_runs(STAGES_FILE), hardware.run, STAGES_FILE)
    settings = RunSettings(run, hardware, "model", tmp_path, tmp_path, grpo_plus=variant)
    for stage in run.stages:
        config = compose_config(build_overrides(settings, stage))
        assert load_pipeline_config(config).dial == dial
