"""EvalPlus's data sets through an evaluation: their own solutions, as answers of a model."""

import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.official_solutions import (
    DATA,
    FAIL_IN_PLAIN_PYTHON,
    read_rows,
    write_rows,
)
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.settings_loader import load_eval_config

pytestmark = pytest.mark.timeout(900)
SAMPLE_SIZE = 12
# Task, stem of its file, number of problems.
DATA_SETS = [("humaneval_plus", "humanevalplus", 164), ("mbpp_plus", "mbppplus", 378)]


def find_rejected(task: str, data: Path, output: Path, model: str = "canonical") -> dict[str, str]:
    """Evaluate preset answers; return verdict and reason of those that are not accepted, by id."""
    settings = [f"model={model}", f"tasks=[{task}]", f"data={data}", f"output={output}"]
    config = load_eval_config(None, [*settings, "hub=false", "sampling.n=1"])
    [result] = run_evaluation(config, Console(quiet=True))["tasks"]
    verdicts = list(read_records(output / task / "verdicts.jsonl"))
    assert result["counts"]["samples"] == len(verdicts) and not result["data"]["bad_rows"]
    accepted = sum(row["verdict"] == "accepted" for row in verdicts)
    assert result["pass@1"]["value"] == pytest.approx(accepted / len(verdicts))
    return {
        row["id"]: f"{row['verdict']}, {row['reason']}"
        for row in verdicts
        if row["verdict"] != "accepted"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("task", "stem", "count"), DATA_SETS)
def test_every_official_solution_is_accepted(tmp_path, capsys, task, stem, count):
    assert len(read_rows(f"{stem}.jsonl.gz")) == count
    rejected = find_rejected(task, DATA, tmp_path / "out")
    with capsys.disabled():
        print(f"\n{task}: {count - len(rejected)} of {count} accepted {rejected or ''}")
    assert rejected.keys() == FAIL_IN_PLAIN_PYTHON[stem], rejected
    assert not any("infrastructure" in why for why in rejected.values()), rejected


@pytest.mark.parametrize(("task", "stem", "_count"), DATA_SETS)
def test_a_sample_of_official_solutions_is_accepted(tmp_path, task, stem, _count):
    """The answers come from a file, among them one that answers another problem."""
    rows = [
        row
        for row in read_rows(f"{stem}.jsonl.gz")
        if str(row["task_id"]) not in FAIL_IN_PLAIN_PYTHON[stem]
    ]
    sample = random.Random(15).sample(rows, SAMPLE_SIZE)
    data = write_rows(tmp_path / "data", f"{stem}.jsonl.gz", sample)
    assert find_rejected(task, data, tmp_path / "right") == {}
    programs = [
        row["code"] if "code" in row else row["prompt"] + row["canonical_solution"]
        for row in sample
    ]
    answers = [
        {"id": str(row["task_id"]), "response": f"Done:\n\n```python\n{program}\n```\n"}
        for row, program in zip(sample, [programs[1], *programs[1:]], strict=True)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    rejected = find_rejected(task, data, tmp_path / "one_wrong", str(path))
    assert rejected.keys() == {answers[0]["id"]}, rejected
