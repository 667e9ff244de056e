"""Verdicts of official solutions, and a sandbox that fails."""

import json
import random
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.helpers.problem_mixture import WRONG_PROGRAM, make_story, make_taco_row
from verl_pipeline.outputs.files import write_lines
from verl_pipeline.recipes.deepcoder.data import preparation
from verl_pipeline.recipes.deepcoder.data.preparation_config import VerifyConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.data.stage_sequence import EmptyStageError
from verl_pipeline.recipes.deepcoder.data.verification import select_solutions
from verl_pipeline.sandbox import Sandbox, SandboxError

SETTINGS = ("sources={taco: {}}", "length.max_tokens=6000")


def write_problems(folder: Path, count: int, list_solutions=None) -> Path:
    """Write ``count`` problems; ``list_solutions`` gets the right program of each."""
    folder.mkdir()
    rows = []
    for number in range(count):
        question, tests, program = make_story(random.Random(number))
        solutions = list_solutions(program) if list_solutions else [program]
        rows.append(make_taco_row(str(number), question, tests, solutions))
    (folder / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class FailingSandbox(Sandbox):
    """A real sandbox that cannot start workers for its first ``failures`` programs.

    The first worker always starts: it only checks whether programs can be isolated at all.
    """

    failures = 0
    started_workers = 0

    @contextmanager
    def lend_worker(self):
        if self.busy_workers == 0 and self.started_workers > 0 and type(self).failures > 0:
            type(self).failures -= 1
            raise SandboxError("planted")
        self.started_workers += 1
        with super().lend_worker() as worker:
            yield worker


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setattr(preparation, "make_sandbox", lambda *_: FailingSandbox(1))
    return FailingSandbox


def test_a_stored_verdict_of_a_later_version_is_graded_again(prepare, tmp_path):
    data = write_problems(tmp_path / "data", 3)
    prepare(*SETTINGS, data=data)
    work = tmp_path / "out" / "work"
    first, *others = map(json.loads, (work / "verdicts.jsonl").read_text().splitlines())
    write_lines(work / "verdicts.jsonl", [first | {"verdict": "later"}, *others])
    for done in work.glob("verify-*/done.json"):
        done.unlink()
    result = prepare(*SETTINGS, data=data)
    assert len(result.records) == 3
    rows = list(map(json.loads, (work / "verdicts.jsonl").read_text().splitlines()))
    assert len(rows) == len(others) + 2
    assert (rows[-1]["digest"], rows[-1]["verdict"]) == (first["digest"], "accepted")


def test_a_program_whose_grading_failed_is_graded_again_in_the_same_run(prepare, tmp_path, failing):
    failing.failures = 2  # one grading tries twice
    result = prepare(*SETTINGS, data=write_problems(tmp_path / "data", 3))
    assert failing.failures == 0
    assert len(result.records) == 3 and all(one.is_complete for one in result.stages)


def test_a_failed_sandbox_is_not_a_wrong_answer_and_the_next_run_tries_again(
    prepare, tmp_path, failing
):
    failing.failures = 4 * 3  # all four attempts of all three programs
    data = write_problems(tmp_path / "data", 3)
    with pytest.raises(
        EmptyStageError, match=r"stage verify leaves no problem.*infrastructure \(planted\)"
    ):
        prepare(*SETTINGS, data=data)
    failing.failures = 0
    result = prepare(*SETTINGS, data=data)
    assert len(result.records) == 3
    assert {one.stage: one.is_cached for one in result.stages}["length"]


def test_one_failed_grading_is_listed_and_the_others_continue(prepare, tmp_path, failing):
    failing.failures = 0
    data = write_problems(tmp_path / "data", 3)
    start_worker = FailingSandbox.lend_worker

    @contextmanager
    def fail_for_first_program(self):
        failing.calls = getattr(failing, "calls", -1) + 1
        if failing.calls in (1, 2, 5, 6):  # the four attempts of the first program
            raise SandboxError("planted")
        with start_worker(self) as worker:
            yield worker

    failing.lend_worker = fail_for_first_program
    try:
        result = prepare(*SETTINGS, data=data)
    finally:
        failing.lend_worker = start_worker
    assert set(result.records.fields_by_id) == {"taco/1", "taco/2"}
    verify = next(one for one in result.stages if one.stage == "verify")
    assert not verify.is_complete
    assert [row.reason for row in verify.read_removals()] == ["infrastructure"]
    result = prepare(*SETTINGS, data=data)
    assert set(result.records.fields_by_id) == {"taco/0", "taco/1", "taco/2"}
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert all(row["extra_info"]["verified"] for row in rows)


def test_a_solution_that_crashes_is_not_a_disagreement(prepare, tmp_path):
    crash = "raise SystemExit(3)"
    data = write_problems(tmp_path / "data", 2, lambda program: [crash, program])
    assert len(prepare(*SETTINGS, data=data).records) == 2


def test_at_most_the_configured_number_of_solutions_is_run(prepare, tmp_path):
    data = write_problems(
        tmp_path / "data", 2, lambda program: [WRONG_PROGRAM, WRONG_PROGRAM + "#", program]
    )
    with pytest.raises(EmptyStageError):
        prepare(*SETTINGS, "verify.solutions=2", data=data)
    result = prepare(*SETTINGS, "verify.on_disagreement=mark", data=data)
    assert len(result.records) == 2


def test_repeated_solutions_and_other_languages_are_not_run():
    programs = ("print 'two'", "print(1)", "print(1)", "", "print(2)", "print(3)")
    record = ProblemRecord("x", "taco", "taco", "?", "{}", 1, (), "x:1", programs)
    assert select_solutions(record, 2) == ["print(1)", "print(2)"]
    assert VerifyConfig().solutions == 3
