"""Arguments that are refused before anything starts, and a data set that lasts for all others."""

import pytest
from typer import Typer
from typer.testing import CliRunner

from verl_pipeline.quickstart import __main__ as quickstart
from verl_pipeline.quickstart.problems import load_problems


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "run_quickstart", lambda *_: pytest.fail("started"))
    app = Typer()
    app.command()(quickstart.main)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("steps", ["0", "-1", "10001", "9" * 30, "2.5", "nan", ""])
def test_a_number_of_steps_that_no_run_can_have_is_refused(run, steps):
    result = run("--steps", steps)
    assert result.exit_code == 2 and "--steps" in result.output, result.output


def test_the_problems_last_for_as_many_steps_as_are_allowed():
    problems = [
        problem
        for problem in load_problems()
        if problem.split == "train" and problem.difficulty in quickstart.DIFFICULTIES
    ]
    assert quickstart.EPOCHS * (len(problems) // quickstart.PROMPTS) >= quickstart.MAX_STEPS
