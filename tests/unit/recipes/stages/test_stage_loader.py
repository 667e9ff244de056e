"""Files of stages and hardware: the shipped ones, and errors in them."""

import pytest

from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    HARDWARE_FOLDER,
    STAGES_FILE,
    StageFileError,
    check_stage_name,
    load_hardware,
    load_runs,
    select_run,
)


def test_the_shipped_runs_have_the_values_of_deepcoder():
    runs = load_runs(STAGES_FILE)
    stages = runs["deepcoder-14b"].stages
    assert {name: (stage.last_step, stage.response_length) for name, stage in stages.items()} == {
        "16k": (180, 16384),
        "32k": (650, 32768),
    }
    assert [(stage.batch, stage.mini_batch, stage.samples) for stage in stages.values()] == [
        (32, 16, 8),
        (128, 64, 8),
    ]
    assert [stage.tokens_per_device for stage in stages.values()] == [20000, 24000]
    assert list(runs["deepcoder-1.5b"].stages) == ["32k"]


def test_every_shipped_hardware_names_a_shipped_run():
    runs = load_runs(STAGES_FILE)
    names = sorted(path.stem for path in HARDWARE_FOLDER.glob("*.yaml"))
    assert names == ["32xH100", "8xA100", "cpu"]
    for name in names:
        assert load_hardware(name).run in runs


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (
            {"last_stepp": 3},
            r"tiny\.stages\.first\.last_stepp: unknown field; did you mean last_step\?",
        ),
        ({"batch": "many"}, r"stages\.first\.batch: Value 'many'"),
        ({"batch": 0}, r"first: batch=0: must be at least 1"),
        (
            {"last_step": 8},
            r"second: last_step=8: must exceed 8, the last step of the stage before",
        ),
        ({"until": {"platau": {}}}, r"until\.platau: unknown field; did you mean plateau\?"),
        ({"until": {"plateau": {"window": 3}}}, r"until\.plateau\.gain: is missing"),
        ({"until": {"truncated_share": {"window": 3}}}, r"give one of above and below"),
        (
            {"until": {"truncated_share": {"above": 0.1, "below": 0.2}}},
            r"give one of above and below",
        ),
        (
            {"pools": {"train": {"nodes": 1, "devices": 0}, "rollout": {"nodes": 1, "devices": 1}}},
            r"devices=0",
        ),
        ({"pools": 3}, r"pools=3: must be a mapping of train, rollout"),
    ],
)
def test_a_bad_stage_is_refused_by_name(write_run_files, change_stages, first, message):
    stages, _hardware = write_run_files(stages=change_stages(first=first))
    with pytest.raises(StageFileError, match=message) as error:
        load_runs(stages)
    assert "\n" not in str(error.value) and "stages.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"stages": {}}, "name at least one"),
        ({"stages": {"a/b": {}}}, "last_step: is missing"),
        ({"modle": "x"}, r"tiny\.modle: unknown field; did you mean model\?"),
        ({"save_every": 0}, "save_every=0"),
    ],
)
def test_a_bad_run_is_refused_by_name(write_run_files, run, message):
    with pytest.raises(StageFileError, match=message):
        load_runs(write_run_files(run=run)[0])


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00"])
def test_a_file_with_other_content_is_refused(tmp_path, text):
    path = tmp_path / "stages.yaml"
    path.write_text(text)
    with pytest.raises(StageFileError, match="stages.yaml"):
        load_runs(path)


def test_unknown_names_are_refused_with_the_most_similar_one(write_run_files):
    runs = load_runs(STAGES_FILE)
    with pytest.raises(StageFileError, match=r"--hardware 32xH10: unknown; did you mean 32xH100\?"):
        load_hardware("32xH10")
    with pytest.raises(StageFileError, match=r"--run deepcoder: .*did you mean deepcoder-14b\?"):
        select_run(runs, "deepcoder", STAGES_FILE)
    with pytest.raises(StageFileError, match=r"--stage 33k: unknown; did you mean 32k\?"):
        check_stage_name(runs["deepcoder-14b"], "33k")
    with pytest.raises(StageFileError, match="device=tpu: must be cuda or cpu"):
        load_hardware(str(write_run_files(hardware={"device": "tpu"})[1]))
    with pytest.raises(StageFileError, match="no such file"):
        load_runs(STAGES_FILE.with_name("none.yaml"))
