"""The command as users run it: killed in the middle, stopped, without the hub; the difficulty of a
real model.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.recipes.data.mixture import planted_mixture, story, taco
from verl_pipeline.quickstart.problems import load_problems
from verl_pipeline.testing.tiny import write_model

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
# Seconds until a run that does nothing any more is taken for one that hangs.
LONGEST_S = 240


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def start(
    model: Path, data: Path, output: Path, *settings: str, **environment: str
) -> subprocess.Popen[str]:
    given = [f"model={model}", "length.max_tokens=6000", *settings]
    command = [sys.executable, "-m", "recipes.deepcoder.prepare", *given]
    return subprocess.Popen(
        [*command, "--data", str(data), "--output", str(output)],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LONGEST_S)
    return process.returncode, out, err


def planted(data: Path) -> list[str]:
    return [
        "sources={taco: {}, primeintellect: {}}",
        "hub=false",
        "contamination.tasks=[humaneval]",
        "difficulty.mode=given",
        f"difficulty.rates={data / 'rates.jsonl'}",
        "split.heldout=5",
        "grader.workers=1",
    ]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def children_of(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry.name)


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LONGEST_S} s for {what}"
        time.sleep(0.005)


def test_killed_while_verifying_it_ends_with_the_same_bytes_and_the_next_run_does_nothing(
    model, tmp_path
):
    data = planted_mixture(3, clean=60).write(tmp_path / "data")
    code, _, err = finish(start(model, data, tmp_path / "whole", *planted(data)))
    assert code == 0, err
    store = tmp_path / "killed" / "work" / "verdicts.jsonl"
    total = lines(tmp_path / "whole" / "work" / "verdicts.jsonl")
    for reached in (total // 4, total // 2):
        process = start(model, data, tmp_path / "killed", *planted(data))
        wait_until(
            lambda: lines(store) >= reached or process.poll() is not None, f"{reached} verdicts"
        )  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        code, _, _ = finish(process)
        assert code == -signal.SIGKILL and reached <= lines(store) < total
        wait_until(
            lambda: not list(children_of(process.pid)), "the sandbox to end with its process"
        )  # noqa: B023
    before = store.read_bytes()
    code, _, err = finish(start(model, data, tmp_path / "killed", *planted(data)))
    assert code == 0, err
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    # Nothing that had a verdict was graded again.
    assert (
        store.read_bytes().startswith(before[: before.rfind(b"\n") + 1]) and lines(store) == total
    )

    kept = store.read_bytes()
    code, out, err = finish(start(model, data, tmp_path / "killed", *planted(data)))
    assert code == 0, err
    assert ": done" not in out and out.count(": cached") == 11
    assert store.read_bytes() == kept and outputs(tmp_path / "killed") == outputs(
        tmp_path / "whole"
    )


def test_ctrl_c_keeps_what_is_done(model, tmp_path):
    data = planted_mixture(3, clean=60).write(tmp_path / "data")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    process = start(model, data, tmp_path / "out", *planted(data))
    wait_until(lambda: lines(store) >= 5 or process.poll() is not None, "five verdicts")
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "the same command goes on from there" in err and "Traceback" not in err
    assert lines(store) >= 5 and not list(children_of(process.pid))


def test_a_hub_that_cannot_be_reached_names_the_local_files_that_would_do(model, tmp_path):
    (tmp_path / "data").mkdir()
    process = start(
        model,
        tmp_path / "data",
        tmp_path / "out",
        "sources={taco: {}}",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "home"),
        HF_HUB_OFFLINE="0",
    )
    code, _, err = finish(process)
    assert code == 2 and "Traceback" not in err
    assert (
        "error: no data found: " in err
        and "hub likaixin/TACO-verified: " in err
        and "Put taco.jsonl" in err
    )


def test_what_is_refused_is_one_line_and_exit_code_2(model, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "taco.jsonl").write_text('{"text": "?"}\n')
    code, _, err = finish(start(model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}"))
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    code, _, err = finish(
        start(model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}", "test.min=3")
    )
    assert code == 2 and "did you mean tests?" in err


def test_two_at_once_in_a_folder_are_refused(model, tmp_path):
    data = planted_mixture(3, clean=60).write(tmp_path / "data")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    first = start(model, data, tmp_path / "out", *planted(data))
    wait_until(lambda: lines(store) >= 1 or first.poll() is not None, "a verdict")
    code, _, err = finish(start(model, data, tmp_path / "out", *planted(data)))
    assert code == 2 and "is running in" in err
    first.send_signal(signal.SIGINT)
    assert finish(first)[0] == 130


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_difficulty_is_measured_by_the_quickstarts_model_and_kept(tmp_path):
    problems = load_problems()[:12]
    settings = [
        "sources={quickstart: {limit: 12}}",
        "model=quickstart",
        "length.max_tokens=160",
        "hub=false",
    ]
    settings += [
        "difficulty.mode=measure",
        "difficulty.k=4",
        "difficulty.max_tokens=48",
        "difficulty.temperature=1.0",
    ]
    process = start(tmp_path, tmp_path, tmp_path / "out", *settings)
    out, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    rates = [
        json.loads(line)
        for line in (tmp_path / "out" / "work" / "rates.jsonl").read_text().splitlines()
    ]
    assert {row["id"] for row in rates} == {f"quickstart/{problem.name}" for problem in problems}
    assert all(row["rate"] in (0, 0.25, 0.5, 0.75, 1) for row in rates)
    kept = {row["id"] for row in rates if 0 < row["rate"] < 1}
    removed = {
        json.loads(line)["id"] for line in (tmp_path / "out/removed.jsonl").read_text().splitlines()
    }
    assert removed == {row["id"] for row in rates} - kept and kept
    before = outputs(tmp_path / "out")
    code, again, _ = finish(start(tmp_path, tmp_path, tmp_path / "out", *settings))
    assert code == 0 and "difficulty: cached" in again and outputs(tmp_path / "out") == before


def test_a_row_of_a_thousand_is_broken_and_the_rest_goes_on(model, tmp_path):
    import random

    question, tests, program = story(random.Random(1))
    (tmp_path / "data").mkdir()
    rows = [json.dumps(taco("good", question, tests, [program])), "\x00\xff not json"]
    (tmp_path / "data" / "taco.jsonl").write_bytes("\n".join(rows).encode("latin-1"))
    code, _, err = finish(
        start(model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}", "hub=false")
    )
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["broken"]["count"] == 1 and report["broken"]["rows"][0]["row"] == "taco.jsonl:2"
