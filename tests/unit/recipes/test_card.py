"""The model card has the numbers of the run's files, and says what is missing."""

import json

import pytest
import yaml

from verl_pipeline.evaluation.recorded_files import DamagedFileError
from verl_pipeline.recipes.deepcoder.card import SHOWN_SETTINGS, CardInputError, build_card
from verl_pipeline.recipes.deepcoder.stages.run_state import index_overrides
from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    STAGES_FILE,
    load_hardware,
    load_runs,
    select_run,
)
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import RunSettings, build_overrides


def test_the_card_has_the_numbers_of_the_run(folders):
    run, data, evaluation = folders
    text = str(build_card(run, data, [evaluation], "small"))
    assert "| short | 0 to 3 | 64 | 4 x default, default |" in text and "0.250 to 0.375" in text
    assert "50.0 % to 25.0 %" in text and "(1 updates skipped)" in text
    assert "| long | 3 to ? |" in text and "**Unfinished**: stage long had not ended" in text
    assert "| taco | 10 | 7 | 3 | a file |" in text and "humaneval" in text and "* odd" in text
    assert (
        "12.5 % [5.0, 25.0] | 164, 328 | 5 |" in text
        and "M 92.6 (pass@1; a paper)" in text
        and "few samples" in text
    )
    header = yaml.safe_load(text.split("---")[1])
    assert header["base_model"] == "org/base"
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 12.5


def test_a_card_without_evaluation_says_so(folders):
    run, data, _ = folders
    assert "No evaluation was given." in str(build_card(run, data, [], "small"))


def test_a_folder_with_other_content_is_named(folders, tmp_path):
    run, data, _ = folders
    with pytest.raises(CardInputError, match="stages.json does not exist"):
        build_card(tmp_path, data, [], "x")
    with pytest.raises(CardInputError, match="report.json does not exist"):
        build_card(run, tmp_path, [], "x")
    (run / "stages.json").write_text("{")
    with pytest.raises(DamagedFileError, match="not valid JSON"):
        build_card(run, data, [], "x")


def test_every_shown_setting_is_set_by_the_stages():
    run = select_run(load_runs(STAGES_FILE), "smollm2-135m", STAGES_FILE)
    folder = STAGES_FILE.parent
    settings = RunSettings(run, load_hardware("cpu"), "model", folder, folder)
    keys = index_overrides(build_overrides(settings, "short"))
    assert set(SHOWN_SETTINGS.values()) <= set(keys), json.dumps(sorted(keys))
