"""``verl-pipeline report``: what it prints and refuses, for whole, killed and broken runs."""

import json
import os
import re
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun
from tests.helpers.trace_format import read_trace
from verl_pipeline.cli import app
from verl_pipeline.report import commands, run_state
from verl_pipeline.report.report_files import write_report
from verl_pipeline.report.run_end import write_end_report
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.run_folder import load_run


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def unfold(text):
    return re.sub(r"\s+", " ", text)


def make_quiet(folder):
    """Let the last write of a run be an hour ago."""
    for path in (folder / "telemetry").iterdir():
        os.utime(path, (time.time() - 3600,) * 2)


def test_the_summary_has_advice_both_pools_and_the_pages_path(runs, tmp_path):
    result = report(runs["ours"], "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    text = unfold(result.output)
    assert unfold(advise(load_run(runs["ours"])).sentence) in text
    assert "trainer" in text and "rollout" in text and "generating" in text
    assert str(tmp_path / "page.html") in text.replace(" ", "")


@pytest.mark.slow
def test_the_page_is_in_the_runs_folder_unless_another_place_is_given(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=2))
    assert report(tmp_path).exit_code == 0
    assert (tmp_path / "report.html").is_file()
    assert load_run(tmp_path).problems == []


@pytest.mark.slow
def test_two_runs_have_ratios(runs, tmp_path):
    result = report(runs["ours"], runs["sync"], "--output", tmp_path / "page.html")
    assert result.exit_code == 0 and "ratio" in result.output
    assert "× 1.00" in result.output
    # Both are called "made up"; what tells them apart is their folder.
    page = (tmp_path / "page.html").read_text("utf-8")
    assert ">ours<" in page and ">sync<" in page


@pytest.mark.slow
def test_the_shares_of_each_pool_sum_to_all_of_its_time(runs, tmp_path):
    (view,) = write_report([runs["ours"]], tmp_path / "page.html").views
    for bill in view.pool_bills:
        assert sum(bill.seconds.values()) == pytest.approx(bill.end - bill.start, abs=1e-3)


@pytest.mark.parametrize("name", ["killed", pytest.param("early", marks=pytest.mark.slow)])
def test_a_killed_run_says_where_it_died(runs, tmp_path, name):
    make_quiet(runs[name])
    result = report(runs[name], "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    run = load_run(runs[name])
    step = max((record.step for record in run.steps), default=0) + 1
    sentence = unfold(result.output)
    assert f"It died, or hangs, in step {step} of {run.header.last_step}" in sentence
    assert "nothing was written in the last 1 h 0 min" in sentence
    assert "It died, or hangs" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.slow
def test_a_run_that_still_writes_is_running_and_its_page_loads_itself_anew(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=6, killed_at=100.0))
    written = write_report([tmp_path], refresh_s=30.0)
    assert written.views[0].state.name == "running"
    assert 'data-refresh="30.0"' in written.page.read_text("utf-8")


@pytest.mark.slow
def test_watch_writes_again_until_the_run_ends(tmp_path, monkeypatch):
    whole = MadeUpRun(steps=3)
    write_run(tmp_path, MadeUpRun(**vars(whole) | {"killed_at": 60.0}))
    waits = []

    def wait(seconds):
        waits.append(seconds)
        assert (tmp_path / "report.html").is_file()
        if len(waits) == 2:
            write_run(tmp_path, whole)

    monkeypatch.setattr(commands.time, "sleep", wait)
    result = report(tmp_path, "--watch", "--every", "7")
    assert result.exit_code == 0, result.output
    assert waits == [7.0, 7.0] and result.output.count("page written again") == 2
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "data-refresh" not in page.partition("<main>")[0]


@pytest.mark.slow
def test_the_trace_goes_with_the_page(runs, tmp_path):
    arguments = ("--output", tmp_path / "page.html", "--trace", tmp_path / "trace.json")
    result = report(runs["ours"], *arguments)
    assert result.exit_code == 0, result.output
    assert len(read_trace((tmp_path / "trace.json").read_text())) > 100


def test_a_trace_of_two_runs_is_refused(runs, tmp_path):
    result = report(runs["ours"], runs["sync"], "--trace", tmp_path / "trace.json")
    assert result.exit_code == 2 and "--trace takes one run" in unfold(result.output)


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "other"])
def test_what_is_no_run_is_refused_in_one_line(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("x")
    elif kind != "missing":
        place.mkdir()
    if kind == "other":
        (place / "notes.txt").write_text("x")
    result = report(place)
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and result.output.count("\n") == 1
    assert "place" in result.output and "Traceback" not in result.output
    assert kind in ("missing", "file") or not (place / "report.html").exists()


@pytest.mark.slow
def test_control_characters_of_a_run_do_not_reach_the_terminal(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=2))
    (path,) = (tmp_path / "telemetry").glob("run-*.jsonl")
    header = json.loads(path.read_text()) | {
        "run_name": "\x1b[31mred[bold]\u202e",
        "mode": "\x9b2J",
    }
    path.write_text(json.dumps(header) + "\n")
    result = report(tmp_path)
    assert result.exit_code == 0, result.output
    assert not set(result.output) & set("\x1b\x9b\u202e") and "[bold]" in result.output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.9, "59.9 s"), (65, "1 min 5 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h")],
)
def test_durations(seconds, text):
    assert run_state.format_duration(seconds) == text


@pytest.mark.slow
def test_the_end_of_a_run_prints_advice_and_path_and_never_fails(runs, tmp_path):
    console = Console(record=True, width=400)
    write_end_report(console, [runs["ours"], tmp_path], tmp_path / "page.html")
    text = console.export_text()
    assert f"advice: {advise(load_run(runs['ours'])).sentence}" in text
    assert f"report: {tmp_path / 'page.html'}" in text
    write_end_report(console, [tmp_path], tmp_path / "none.html")
    assert "recorded nothing" in console.export_text()
    (tmp_path / "folder.html").mkdir()
    write_end_report(console, [runs["ours"]], tmp_path / "folder.html")
    assert "report: none, OutputError" in console.export_text()
