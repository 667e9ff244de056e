"""Values of the evaluation's options: paths as they are, modules that are no task."""

import pytest
from typer.testing import CliRunner

from verl_pipeline.cli import app
from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.evaluation.settings_loader import load_eval_config

SETTINGS = ["model=empty", "tasks=[tests.helpers.small_task]"]


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})


def test_a_path_of_an_option_is_taken_as_it_is():
    for name in ("a #1", "b: c", "[d]", "null", "1e3", "${e}", "g\\h"):
        assert load_eval_config(None, SETTINGS, {"output": name}).output == name
        text = format_override("output", name)
        assert load_eval_config(None, [*SETTINGS, text]).output == name


@pytest.mark.parametrize("content", ["1 / 0", "def f(:", "raise SystemExit", "TASK = 3"])
def test_a_module_that_is_no_task_is_refused_in_one_line(tmp_path, monkeypatch, content):
    name = f"tour_task_{abs(hash(content))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "task.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    result = invoke("eval", "--model", "empty", "--tasks", f"{name}.task")
    assert result.exit_code == 2 and f"{name}.task" in result.output
    assert len(result.output.splitlines()) == 1


def test_spaces_between_tasks_are_allowed():
    result = invoke("eval", "--model", "empty", "--tasks", "aime2024, nope", "hub=false")
    assert "no task 'nope'" in result.output


def test_a_file_is_no_folder_of_an_evaluation():
    result = invoke("eval-compare", __file__, __file__)
    assert result.exit_code == 2 and f"{__file__}: a file; name the output folder" in result.output
