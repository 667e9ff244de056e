"""`verl-pipeline demo`: its table and page, and its answers to wrong inputs."""

import json
import re

import pytest
from typer.testing import CliRunner

from tests.helpers.planner_cases import make_content
from verl_pipeline.cli import app
from verl_pipeline.report import demo_page


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(json.dumps(make_content(description="a <small> cluster")))
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)])


def test_it_says_what_each_schedule_takes_and_writes_a_page(profile, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = invoke("--profile", profile, "--output", page)
    assert done.exit_code == 0, done.output
    for name in ("sync", "drained s=1", "rolling s=2", "in_flight s=2"):
        assert name in done.stdout
    assert re.search(r"times as fast|Stay with sync", done.stdout)
    text = page.read_text()
    assert demo_page.MARK in text and "a &lt;small&gt; cluster" in text
    # Again, over its own file.
    assert invoke("--profile", profile, "--output", page).exit_code == 0


def test_a_foreign_file_is_not_replaced_and_nothing_is_run_for_it(profile, tmp_path):
    foreign = tmp_path / "notes.html"
    foreign.write_text("mine")
    done = invoke("--profile", tmp_path / "none.yaml", "--output", foreign)
    assert done.exit_code == 2 and foreign.read_text() == "mine"
    assert "notes.html" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [make_content(gpus=1), make_content(gpus=-1), {}, make_content(sampling__slots=0)],
)
def test_a_profile_that_cannot_be_run_is_refused_in_one_line(profile, tmp_path, content):
    profile.write_text(json.dumps(content))
    page = tmp_path / "page.html"
    done = invoke("--profile", profile, "--output", page)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1 and not page.exists()


def test_where_no_schedule_gains_it_says_so(tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        json.dumps(make_content(training={"gpus": 2, "update_s": 3000.0}, reward__seconds=0.0))
    )
    done = invoke("--profile", profile, "--output", tmp_path / "page.html")
    assert done.exit_code == 0 and "Stay with sync" in done.stdout, done.output
