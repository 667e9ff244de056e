"""``verl-pipeline ledger`` and ``top``: what they show, refuse and escape."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.helpers.broken_inputs import BAD_ARGUMENTS, BAD_VALUES, Raw
from tests.helpers.command_fuzz import efforts, fuzz
from tests.helpers.made_up_run import make_header, write_run
from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.cli import app
from verl_pipeline.telemetry.records import (
    FOLDER,
    Gauge,
    Moment,
    Pool,
    Problem,
    Span,
    StepRecord,
    TrajectoryEvent,
)

RUN = MadeUpRun(steps=3, prompts=3, group=2)
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/] \u202e\r\n\x9b31m</script>"
RECORDS = {
    "run": make_header(RUN, run_name=HOSTILE),
    "spans": Span(Pool.TRAINER, "driver", "step", START, START + 5.0, 1),
    "gauges": Gauge("replica 7", START + 3.0, 1.0, 2.0, 0.5, 100.0),
    "trajectories": TrajectoryEvent(Moment.TRAINED, START + 9.0, "p", 0, 1, 1, reward=1.0),
    "steps": StepRecord(START + 9.0, 1, {"critic/score/mean": 0.5}),
    "problems": Problem(START + 9.0, "the disk was full"),
}


def invoke(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def find_controls(text):
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}


def append(folder, kind, *lines, process="zz-node1-7-0"):
    path = folder / FOLDER / f"{kind}-{process}.jsonl"
    with path.open("a") as file:
        file.write("".join(line + "\n" for line in lines))


def dump(record, **changes):
    """A record as a line; a change may be a :class:`Raw` text."""
    texts = []
    for name, value in (vars(record) | changes).items():
        text = value.text if isinstance(value, Raw) else json.dumps(value)
        texts.append(f"{json.dumps(name)}: {text}")
    return "{" + ", ".join(texts) + "}"


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path, RUN)
    return tmp_path


def test_the_ledger_of_a_sound_run(folder):
    result = invoke("ledger", folder)
    assert result.exit_code == 0
    assert "9 prompts, 18 trajectories" in result.stdout
    assert "no prompt of a finished step is missing or doubled" in result.stdout


def test_the_life_of_a_prompt_is_shown_whole(folder):
    result = invoke("ledger", folder, "--uid", "b2p1")
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split()[:3] == ["prompt", "session", "state"] and len(rows) == RUN.group
    assert all(row.startswith("b2p1") and "…" not in row for row in rows)
    assert "verdict" in head and "failed" not in head.split()  # no column without a value


def test_rows_can_be_had_as_json(folder):
    result = invoke("ledger", folder, "--step", "2", "--json", "--limit", "1")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == RUN.prompts * RUN.group and {row["step"] for row in rows} == {2}


def test_a_long_table_is_cut_and_says_so(folder):
    result = invoke("ledger", folder, "--step", "2", "--limit", "4")
    assert len(result.stdout.splitlines()) == 6 and "and 2 more" in result.stdout


def test_what_is_lost_is_named_with_exit_code_1(folder):
    (path,) = (folder / FOLDER).glob("trajectories-*")
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"b2p1"' not in line or "submitted" in line]
    path.write_text("".join(kept))
    result = invoke("ledger", folder)
    assert (
        result.exit_code == 1 and "neither trained nor filtered nor failed: b2p1" in result.stdout
    )
    result = invoke("ledger", folder, "--lost")
    assert result.exit_code == 1 and "b2p1" in result.stdout


def test_nothing_lost_and_nobody_selected(folder):
    assert invoke("ledger", folder, "--lost").exit_code == 0
    result = invoke("ledger", folder, "--uid", "nobody")
    assert result.exit_code == 1 and "no trajectory is selected" in result.stderr
    assert invoke("ledger", folder, "--json").exit_code == 2


def test_one_frame_shows_what_a_run_does(tmp_path):
    run = replace(RUN, steps=5, median_tokens=2000.0, limit=4000, killed_at=90.0, prompts=8)
    write_run(tmp_path, run)
    result = invoke("top", tmp_path, "--once")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "made up: one_off_pipeline, drained, staleness 1, 2 + 2 devices: running" in text
    for words in ("step 1 of 5", "left", "reward ", "trainer in step 1: ", "rollout in step 1: "):
        assert words in text
    assert "replica 0" in text and "replica 1" in text
    assert "in flight: " in text and "the oldest:" in text and "since " in text


def test_a_run_that_has_ended_or_is_silent_says_so(folder):
    assert ": ended" in invoke("top", folder, "--once").stdout
    write_run(folder / "killed", replace(RUN, killed_at=40.0))
    for path in (folder / "killed" / FOLDER).iterdir():
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert "nothing written for 2 h 00 min" in invoke("top", folder / "killed", "--once").stdout


@pytest.mark.parametrize("command", [["top", "--once"], ["ledger"], ["ledger", "--step", "1"]])
def test_nothing_reaches_the_terminal_raw(folder, command):
    append(folder, "run", dump(RECORDS["run"], started=START + 1))
    append(folder, "problems", dump(RECORDS["problems"], text=HOSTILE))
    append(folder, "gauges", dump(RECORDS["gauges"], lane=HOSTILE))
    append(folder, "spans", dump(RECORDS["spans"], name=HOSTILE, end=START + 1e6))
    event = RECORDS["trajectories"]
    changes = {"prompt": HOSTILE, "verdict": HOSTILE, "reason": HOSTILE, "replica": HOSTILE}
    append(folder, "trajectories", dump(event, moment="started", step=None, **changes))
    append(folder, "trajectories", dump(event, moment="graded", step=1, session=1, **changes))
    result = invoke(command[0], folder, *command[1:])
    assert result.exit_code in (0, 1)
    assert find_controls(result.output) == set()
    assert "owned" in result.output and "[bold red]x[/]" in result.output


breaks = st.tuples(
    st.sampled_from([(kind, name) for kind, record in RECORDS.items() for name in vars(record)]),
    st.sampled_from(BAD_VALUES),
)


@efforts(quick=5, many=150)
def test_broken_values_are_left_out_or_shown_escaped(tmp_path_factory, effort):
    @fuzz(effort)
    @given(broken=st.lists(breaks, min_size=1, max_size=12))
    def check(broken):
        check_broken(tmp_path_factory, broken)

    check()


def check_broken(tmp_path_factory, broken):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, RUN)
    for (kind, name), value in broken:
        append(folder, kind, dump(RECORDS[kind], **{name: value}))
    for arguments in (["top", "--once"], ["ledger"], ["ledger", "--step", "1"]):
        result = invoke(arguments[0], folder, *arguments[1:])
        assert result.exit_code in (0, 1, 2)
        assert find_controls(result.output) == set()
        if result.exit_code == 2:  # another format, or no header that counts
            assert len(result.stderr.splitlines()) == 1
            assert any(kind == "run" for (kind, _), _ in broken)


@pytest.mark.parametrize("command", ["ledger", "top"])
@pytest.mark.parametrize("value", BAD_ARGUMENTS)
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, monkeypatch, command, value):
    monkeypatch.chdir(tmp_path)
    if "\0" in value or value in ("..", "/", "~"):
        return
    result = CliRunner().invoke(app, [command, "--", value])
    assert result.exit_code == 2 and find_controls(result.stderr) - {"\x1b"} == set()
    assert not isinstance(result.exception, UnicodeError)


@pytest.mark.parametrize("kind", ["run", "trajectories", "spans", "texts"])
def test_a_pipe_among_the_files_is_not_waited_for(folder, kind):
    (path, *_) = (folder / FOLDER).glob(f"{kind}-*")
    path.unlink()
    os.mkfifo(path)
    assert invoke("top", folder, "--once").exit_code == (2 if kind == "run" else 0)


def start_top(folder):
    """``top`` in a terminal of its own; returns the process and the terminal's other end."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "verl_pipeline.cli", "top", str(folder), "--every", "0.2"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        command,
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    os.close(end)
    return process, terminal


def read_until(terminal, words, seconds=60.0):
    """What the terminal got, once it has the words."""
    seen, deadline = b"", time.monotonic() + scale_deadline(seconds)
    while words not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], seen
        seen += os.read(terminal, 65536)
    return seen


@pytest.mark.medium
@pytest.mark.parametrize(
    "ending",
    ["q", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Ctrl-C", "SIGTERM"))],
)
def test_top_follows_a_run_that_writes_and_ends_cleanly(tmp_path, ending):
    write_run(tmp_path, replace(RUN, killed_at=60.0))
    process, terminal = start_top(tmp_path)
    try:
        read_until(terminal, b"in flight")
        record = StepRecord(START + 61.0, 77, {"critic/score/mean": 0.5})
        append(tmp_path, "steps", dump(record))
        read_until(terminal, b"step 77 of")
        if ending == "q":
            os.write(terminal, b"q")
        else:
            number = signal.SIGINT if ending == "Ctrl-C" else signal.SIGTERM
            process.send_signal(number)
        seen = read_until(terminal, b"\x1b[?1049l")  # back on the normal screen
        assert b"Traceback" not in seen
        assert process.wait(scale_deadline(30)) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_a_command_needs_no_right_to_write(folder):
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    for arguments in (["top", "--once"], ["ledger"]):
        invoke(arguments[0], folder, *arguments[1:])
    assert before == {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
