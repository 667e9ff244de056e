"""Verdicts of official solutions, and a sandbox that fails."""

import json
import random
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet
import pytest

from recipes.deepcoder.data import preparation as pipeline
from recipes.deepcoder.data.preparation_config import VerifyConfig
from recipes.deepcoder.data.problem_records import Record
from recipes.deepcoder.data.verification import chosen
from tests.unit.recipes.data.mixture import WRONG, story, taco
from verl_pipeline.sandbox import Sandbox, SandboxError

SETTINGS = ("sources={taco: {}}", "length.max_tokens=6000")


def data(folder: Path, count: int, solutions=None) -> Path:
    folder.mkdir()
    rows = []
    for number in range(count):
        question, tests, program = story(random.Random(number))
        rows.append(
            taco(str(number), question, tests, solutions(program) if solutions else [program])
        )
    (folder / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Failing(Sandbox):
    """A real sandbox whose workers are not to be had for the first ``failures`` programs after the
    start.
    """

    failures = 0

    @contextmanager
    def worker(self):
        if (
            self.busy == 0 and self.asked > 0 and type(self).failures > 0
        ):  # the first only learns whether one starts
            type(self).failures -= 1
            raise SandboxError("planted")
        self.asked += 1
        with super().worker() as worker:
            yield worker

    asked = 0


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setattr(pipeline, "sandbox_of", lambda *_: Failing(1))
    return Failing


def test_a_program_whose_grading_failed_is_graded_again_in_the_same_run(prepare, tmp_path, failing):
    failing.failures = 2  # a grading tries twice
    outcome = prepare(*SETTINGS, data=data(tmp_path / "data", 3))
    assert failing.failures == 0
    assert len(outcome.records) == 3 and all(done.complete for done in outcome.stages)


def test_infrastructure_is_no_wrong_answer_and_the_next_run_tries_again(prepare, tmp_path, failing):
    failing.failures = 4 * 3  # all tries of all programs
    folder = data(tmp_path / "data", 3)
    with pytest.raises(
        pipeline.NothingLeft, match=r"stage verify leaves no problem.*infrastructure \(planted\)"
    ):
        prepare(*SETTINGS, data=folder)
    failing.failures = 0
    outcome = prepare(*SETTINGS, data=folder)
    assert len(outcome.records) == 3
    assert {done.stage: done.cached for done in outcome.stages}["length"]


def test_one_that_fails_is_listed_and_the_others_go_on(prepare, tmp_path, failing):
    failing.failures = 0
    folder = data(tmp_path / "data", 3)
    real = Failing.worker

    @contextmanager
    def broken_for_the_first(self):
        failing.gradings = getattr(failing, "gradings", -1) + 1
        if failing.gradings in (1, 2, 5, 6):  # the first program's four tries
            raise SandboxError("planted")
        with real(self) as worker:
            yield worker

    failing.worker = broken_for_the_first
    try:
        outcome = prepare(*SETTINGS, data=folder)
    finally:
        failing.worker = real
    assert set(outcome.records.kept) == {"taco/1", "taco/2"}
    verify = next(done for done in outcome.stages if done.stage == "verify")
    assert not verify.complete and [row.reason for row in verify.removals()] == ["infrastructure"]
    again = prepare(*SETTINGS, data=folder)
    assert set(again.records.kept) == {"taco/0", "taco/1", "taco/2"}
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert all(row["extra_info"]["verified"] for row in rows)


def test_a_solution_that_needs_too_long_is_no_disagreement(prepare, tmp_path):
    crash = "raise SystemExit(3)"
    outcome = prepare(*SETTINGS, data=data(tmp_path / "data", 2, lambda program: [crash, program]))
    assert len(outcome.records) == 2


def test_only_so_many_solutions_are_run(prepare, tmp_path):
    folder = data(tmp_path / "data", 2, lambda program: [WRONG, WRONG + "#", program])
    with pytest.raises(pipeline.NothingLeft):
        prepare(*SETTINGS, "verify.solutions=2", data=folder)
    outcome = prepare(*SETTINGS, "verify.on_disagreement=mark", data=folder)
    assert len(outcome.records) == 2


def test_what_is_no_python_3_and_what_is_there_twice_is_not_run():
    programs = ("print 'two'", "print(1)", "print(1)", "", "print(2)", "print(3)")
    record = Record("x", "taco", "taco", "?", "{}", 1, (), "x:1", programs)
    assert chosen(record, 2) == ["print(1)", "print(2)"]
    assert VerifyConfig().solutions == 3
