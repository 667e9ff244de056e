"""`verl-pipeline eval-compare` with broken results, samples and verdicts."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.helpers.broken_inputs import broken_contents
from tests.helpers.command_fuzz import (
    FuzzedCommand,
    check_answer,
    check_answers,
    efforts,
    run_command,
)
from tests.helpers.damaged_files import damage_file, each_damage
from tests.helpers.made_up_results import write_results

pytestmark = pytest.mark.medium
FILES = ("results.json", "aime2024/samples.jsonl", "aime2024/verdicts.jsonl")


def read_evaluation() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        results = write_results(Path(name), problems=2, samples=1)
        rows = {
            file: [json.loads(line) for line in (Path(name) / file).read_text().splitlines()]
            for file in FILES[1:]
        }
    results["tasks"] = [task for task in results["tasks"] if task["task"] == "aime2024"]
    return {"results.json": results, **rows}


COMPARE = FuzzedCommand(
    name="eval-compare",
    module="verl_pipeline.cli",
    arguments=("eval-compare", "before", "after"),
    files={
        f"{side}/{file}": contents
        for side in ("before", "after")
        for file, contents in read_evaluation().items()
    },
    exit_codes=frozenset({0, 2}),
    links=frozenset({"id", "sample", "task", "sha256", "n", "data"}),
    preload=("verl_pipeline.evaluation.comparison",),
)
every_file = pytest.mark.parametrize("file", FILES)


def test_good_files_are_compared():
    answer = run_command(COMPARE)
    assert answer.exit_code == 0 and "aime2024" in answer.output, answer.output


@every_file
@each_damage
def test_damaged_file(file, damage):
    if file != "results.json" and damage in ("missing", "a dangling link", "cut in the middle"):
        pytest.skip("an interrupted evaluation leaves such files")
    check_answer(COMPARE, damage_file(f"after/{file}", damage))


@every_file
@efforts(quick=5, many=1000)
def test_broken_contents(file, effort):
    check_answers(COMPARE, broken_contents(COMPARE, f"after/{file}"), effort)
