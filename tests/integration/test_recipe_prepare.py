"""The command as users run it: killed, interrupted, without the hub, and with a real model."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.official_solutions import read_rows, write_rows
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.problem_mixture import make_mixture, make_story, make_taco_row
from verl_pipeline.quickstart.problems import load_problems
from verl_pipeline.testing.tiny_run import write_model

ROOT = Path(__file__).parents[2]
# After so many seconds without a result, a run counts as hanging.
TIMEOUT_S = 240
# DeepCoder's LeetCode part, as rLLM publishes it.
LEETCODE = "leetcode_train.json.gz"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def start_prepare(
    model: Path, data: Path, output: Path, *settings: str, **environment: str
) -> subprocess.Popen[str]:
    settings = (f"model={model}", "length.max_tokens=6000", *settings)
    command = [sys.executable, "-m", "verl_pipeline.recipes.deepcoder.prepare", *settings]
    return subprocess.Popen(
        [*command, "--data", str(data), "--output", str(output)],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=scale_deadline(TIMEOUT_S))
    return process.returncode, out, err


def list_settings(data: Path) -> list[str]:
    return [
        "sources={taco: {}, primeintellect: {}}",
        "hub=false",
        "contamination.tasks=[humaneval]",
        "difficulty.mode=given",
        f"difficulty.rates={data / 'rates.jsonl'}",
        "split.heldout=5",
        "grader.workers=1",
    ]


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def list_processes(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry.name)


def kill_prepare(model: Path, data: Path, output: Path, minimum: int) -> None:
    """Start a preparation, and kill it once it has ``minimum`` verdicts."""
    store = output / "work" / "verdicts.jsonl"
    process = start_prepare(model, data, output, *list_settings(data))
    wait_until(
        lambda: count_lines(store) >= minimum or process.poll() is not None,
        TIMEOUT_S,
        f"{minimum} verdicts",
    )
    os.killpg(process.pid, signal.SIGKILL)
    code, _, _ = wait_for(process)
    assert code == -signal.SIGKILL
    wait_until(
        lambda: not list(list_processes(process.pid)),
        TIMEOUT_S,
        "the sandbox to end with its process",
    )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes_and_the_next_run_does_nothing(model, tmp_path):
    data = make_mixture(3, clean=60).write_files(tmp_path / "data")
    code, _, err = wait_for(start_prepare(model, data, tmp_path / "whole", *list_settings(data)))
    assert code == 0, err
    store = tmp_path / "killed" / "work" / "verdicts.jsonl"
    total = count_lines(tmp_path / "whole" / "work" / "verdicts.jsonl")
    for minimum in (total // 4, total // 2):
        kill_prepare(model, data, tmp_path / "killed", minimum)
        assert minimum <= count_lines(store) < total
    before = store.read_bytes()
    code, _, err = wait_for(start_prepare(model, data, tmp_path / "killed", *list_settings(data)))
    assert code == 0, err
    assert read_files(tmp_path / "killed") == read_files(tmp_path / "whole")
    # No program that had a verdict was graded again.
    assert (
        store.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
        and count_lines(store) == total
    )

    verdicts = store.read_bytes()
    code, out, err = wait_for(start_prepare(model, data, tmp_path / "killed", *list_settings(data)))
    assert code == 0, err
    assert ": done" not in out and out.count(": cached") == 11
    assert store.read_bytes() == verdicts and read_files(tmp_path / "killed") == read_files(
        tmp_path / "whole"
    )


def test_ctrl_c_keeps_finished_work(model, tmp_path):
    data = make_mixture(3, clean=60).write_files(tmp_path / "data")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    process = start_prepare(model, data, tmp_path / "out", *list_settings(data))
    wait_until(
        lambda: count_lines(store) >= 5 or process.poll() is not None, TIMEOUT_S, "five verdicts"
    )
    process.send_signal(signal.SIGINT)
    code, _, err = wait_for(process)
    assert code == 130 and "rerun the same command to resume" in err and "Traceback" not in err
    assert count_lines(store) >= 5 and not list(list_processes(process.pid))


def test_if_the_hub_cannot_be_reached_the_error_names_the_local_files_that_are_needed(
    model, tmp_path
):
    (tmp_path / "data").mkdir()
    process = start_prepare(
        model,
        tmp_path / "data",
        tmp_path / "out",
        "sources={taco: {}}",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "home"),
        HF_HUB_OFFLINE="0",
    )
    code, _, err = wait_for(process)
    assert code == 2 and "Traceback" not in err
    assert (
        "error: no data found: " in err
        and "hub likaixin/TACO-verified: " in err
        and "Put taco.jsonl" in err
    )


def test_a_refusal_is_one_line_with_exit_code_2(model, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "taco.jsonl").write_text('{"text": "?"}\n')
    code, _, err = wait_for(
        start_prepare(model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}")
    )
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    code, _, err = wait_for(
        start_prepare(
            model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}", "test.min=3"
        )
    )
    assert code == 2 and "did you mean tests?" in err


@pytest.mark.slow
def test_a_second_process_in_a_folder_is_refused(model, tmp_path):
    data = make_mixture(3, clean=60).write_files(tmp_path / "data")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    first = start_prepare(model, data, tmp_path / "out", *list_settings(data))
    wait_until(lambda: count_lines(store) >= 1 or first.poll() is not None, TIMEOUT_S, "a verdict")
    # The second takes seconds to import: the first must not finish meanwhile.
    first.send_signal(signal.SIGSTOP)
    code, _, err = wait_for(start_prepare(model, data, tmp_path / "out", *list_settings(data)))
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGCONT)
    assert code == 2 and "another process is writing to" in err
    assert wait_for(first)[0] == 130


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pass_rates_of_the_quickstarts_model_are_measured_and_cached(tmp_path):
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
    process = start_prepare(tmp_path, tmp_path, tmp_path / "out", *settings)
    out, err = process.communicate(timeout=scale_deadline(800))
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
    before = read_files(tmp_path / "out")
    code, again, _ = wait_for(start_prepare(tmp_path, tmp_path, tmp_path / "out", *settings))
    assert code == 0 and "difficulty: cached" in again and read_files(tmp_path / "out") == before


def prepare_leetcode(model: Path, folder: Path, rows: list[dict]) -> dict:
    """Prepare rows of the data set's own file; return what the report says of the source."""
    data = write_rows(folder / "data", LEETCODE, rows)
    process = start_prepare(
        model,
        data,
        folder / "out",
        "sources={leetcode: {}}",
        "hub=false",
        "tests.min=1",
        "length.max_tokens=100000",
    )
    _, err = process.communicate(timeout=scale_deadline(1200))
    assert process.returncode == 0, err
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["broken"]["count"] == 0, report["broken"]
    return report["sources"]["leetcode"]


def uses_nodes(row: dict) -> bool:
    return "list_node(" in str(row["tests"]) or "tree_node(" in str(row["tests"])


@pytest.mark.slow
def test_official_solutions_of_a_sample_of_leetcode_are_verified(model, tmp_path):
    rows = read_rows(LEETCODE)
    generator = random.Random(15)
    sample = [
        *generator.sample([row for row in rows if uses_nodes(row)], 5),
        *generator.sample([row for row in rows if not uses_nodes(row)], 10),
    ]
    source = prepare_leetcode(model, tmp_path, sample)
    assert source["rows"] == 15 and source["stages"]["verify"]["went"] == 0
    assert source["left"] == 15


@pytest.mark.slow
@pytest.mark.timeout(1300)
def test_every_official_solution_of_leetcode_is_verified(model, tmp_path):
    rows = read_rows(LEETCODE)
    source = prepare_leetcode(model, tmp_path, rows)
    assert source["rows"] == len(rows) == 1889
    before = ("language", "tests", "length", "decontaminate")
    assert [source["stages"][stage]["went"] for stage in (*before, "verify")] == [0] * 5


def test_a_broken_row_does_not_stop_the_others(model, tmp_path):
    question, tests, program = make_story(random.Random(1))
    (tmp_path / "data").mkdir()
    rows = [json.dumps(make_taco_row("good", question, tests, [program])), "\x00\xff not json"]
    (tmp_path / "data" / "taco.jsonl").write_bytes("\n".join(rows).encode("latin-1"))
    code, _, err = wait_for(
        start_prepare(model, tmp_path / "data", tmp_path / "out", "sources={taco: {}}", "hub=false")
    )
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["broken"]["count"] == 1 and report["broken"]["rows"][0]["row"] == "taco.jsonl:2"
