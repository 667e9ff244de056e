"""The folder for a hub is whole, has no path of this machine, and takes no other's place."""

import json

import pytest

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.recipes.deepcoder.card import build_card
from verl_pipeline.recipes.deepcoder.hub_folder import (
    HubFolderError,
    make_upload_command,
    strip_folders,
    write_hub_folder,
)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", ".hidden", "README.md"):
        (folder / name).write_text(f"the model's {name}")
    return folder


def test_the_folder_has_model_card_configuration_and_results(folders, model, tmp_path):
    run, data, evaluation = folders
    card = str(build_card(run, data, [evaluation], "small"))
    target = tmp_path / "hub"
    for _ in range(2):  # the same command writes it again
        names = write_hub_folder(target, card, run, data, model, [evaluation])
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {*names, ".lock"}
    assert {"config.json", "model.safetensors", "run/short/metrics.jsonl"} <= found
    assert (target / "README.md").read_text() == card
    assert (target / "model.safetensors").read_text() == "the model's model.safetensors"
    recorded = json.loads((evaluation / "results.json").read_text())
    assert json.loads((target / "results/eval/results.json").read_text()) == recorded


def test_a_run_without_a_whole_model_is_refused(folders, model, tmp_path):
    run, data, _ = folders
    (model / "model.safetensors").unlink()
    for nothing in (model, None):
        with pytest.raises(HubFolderError, match="verl.model_merger"):
            write_hub_folder(tmp_path / "hub", "", run, data, nothing, [])
    assert not (tmp_path / "hub").exists()


def test_evaluations_of_one_name_are_refused(folders, model, tmp_path):
    run, data, evaluation = folders
    with pytest.raises(HubFolderError, match="the same folder name"):
        write_hub_folder(tmp_path / "hub", "", run, data, model, [evaluation, evaluation])


def test_a_folder_of_others_stays(folders, model, tmp_path):
    run, data, _ = folders
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/mine.txt").write_text("x")
    with pytest.raises(OutputError, match="--hub-folder"):
        write_hub_folder(tmp_path / "hub", "", run, data, model, [])
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"path": "/home/me/models/small"}', '{"path": "small"}'),
        (
            "data.train_files=[/a/b/train.parquet,/c/d.parquet]",
            "data.train_files=[train.parquet,d.parquet]",
        ),
        ('"org/base"', '"org/base"'),
        ("1/2, a / b, s3://bucket/x/y", "1/2, a / b, s3://bucket/x/y"),
        ("'/usr/bin/python -u'", "'python -u'"),
    ],
)
def test_records_lose_the_folders_of_this_machine(text, expected):
    assert strip_folders(text) == expected


def test_the_upload_is_the_hubs_own_command(tmp_path):
    command = make_upload_command(tmp_path / "a b", "small")
    assert command == f"hf upload YOUR_ORG/small '{tmp_path}/a b' . --exclude .lock"
