"""Pass rates: given ones, and ones measured from stored answers."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.data import BadData
from verl_pipeline.quickstart.problems import load_problems
from verl_pipeline.recipes.deepcoder.data.difficulty import (
    filter_by_pass_rate,
    measure_pass_rates,
    read_pass_rates,
)
from verl_pipeline.recipes.deepcoder.data.preparation_config import DifficultyConfig
from verl_pipeline.recipes.deepcoder.data.preparation_loader import load_preparation
from verl_pipeline.recipes.deepcoder.data.problem_records import KeptRow, RecordSet, RemovedRow

SAMPLES = 4


@pytest.fixture
def records(prepare, tmp_path) -> RecordSet:
    """Four of the quickstart's problems."""
    result = prepare(
        "sources={quickstart: {limit: 4}}", "length.max_tokens=6000", f"work={tmp_path / 'work'}"
    )
    return result.records


@pytest.fixture
def measure(records, tmp_path):
    """A function that measures pass rates from a file of answers, below one work folder."""
    config = load_preparation(
        None,
        [
            "sources={quickstart: {}}",
            "model=quickstart",
            "difficulty.mode=measure",
            "difficulty.temperature=1.0",
            f"difficulty.k={SAMPLES}",
        ],
    )

    def measure_answers(answers: Path, weights: str = "weights") -> dict[str, float]:
        work, console = tmp_path / "measured", Console(quiet=True)
        return measure_pass_rates(records, config, str(answers), weights, work, console)

    return measure_answers


def write_answers(path: Path, right_counts: list[int]) -> Path:
    """Write answers of which the first ``right_counts[i]`` to problem i are right."""
    rows = []
    for problem, right_count in zip(load_problems(), right_counts, strict=False):
        for sample in range(SAMPLES):
            wrong = f"def {problem.entry_point}(*arguments):\n    return 'wrong'"
            program = problem.reference if sample < right_count else wrong
            rows.append(
                {"id": f"quickstart/{problem.name}", "response": f"```python\n{program}\n```"}
            )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rates_are_shares_of_samples_and_are_measured_once(records, measure, tmp_path):
    rates = measure(write_answers(tmp_path / "answers.jsonl", [0, 1, 2, 4]))
    assert rates == dict(zip(records.fields_by_id, [0.0, 0.25, 0.5, 1.0], strict=True))
    store = (tmp_path / "measured" / "rates.jsonl").read_bytes()
    # The answers do not exist, so the stored rates must have been used.
    assert measure(tmp_path / "none.jsonl") == rates
    assert (tmp_path / "measured" / "rates.jsonl").read_bytes() == store
    decisions = list(filter_by_pass_rate(records, rates, DifficultyConfig(mode="measure")))
    assert [type(one) for one in decisions] == [RemovedRow, KeptRow, KeptRow, RemovedRow]
    reasons = [one.reason for one in decisions if isinstance(one, RemovedRow)]
    assert reasons == ["too hard", "too easy"]
    kept_rates = [one.fields["pass_rate"] for one in decisions if isinstance(one, KeptRow)]
    assert kept_rates == [0.25, 0.5]


def test_a_problem_with_a_failed_sample_has_no_rate_and_is_measured_again(
    records, measure, tmp_path
):
    answers = write_answers(tmp_path / "answers.jsonl", [1, 1, 1, 1])
    complete = answers.read_text()
    # Without its line, the last sample of the last problem fails.
    answers.write_text("".join(complete.splitlines(keepends=True)[:-1]))
    names = list(records.fields_by_id)
    rates = measure(answers)
    assert rates == dict.fromkeys(names[:3], 0.25)
    *_, last = filter_by_pass_rate(records, rates, DifficultyConfig(mode="measure"))
    assert isinstance(last, RemovedRow) and last.reason == "no pass rate" and last.is_transient
    answers.write_text(complete)
    assert measure(answers) == dict.fromkeys(names, 0.25)


def test_another_model_is_measured_again(measure, tmp_path):
    first = write_answers(tmp_path / "first.jsonl", [4] * 4)
    second = write_answers(tmp_path / "second.jsonl", [0] * 4)
    assert set(measure(first, "first weights").values()) == {1.0}
    assert set(measure(second, "second weights").values()) == {0.0}


def test_a_row_without_a_given_rate_is_removed_for_good(records):
    config = DifficultyConfig(mode="given", rates="rates.jsonl")
    decisions = list(filter_by_pass_rate(records, {}, config))
    assert all(
        isinstance(one, RemovedRow) and one.detail == "not in rates.jsonl" and not one.is_transient
        for one in decisions
    )


@pytest.mark.parametrize(
    "line", ['{"id": "a"}', '{"rate": 0.5}', '{"id": "a", "rate": 2}', '{"id": "a", "rate": "x"}']
)
def test_wrong_rates_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "rates.jsonl"
    path.write_text('{"id": "x", "rate": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"rates.jsonl:2: (id|rate): .* a rate from 0 to 1"):
        read_pass_rates(str(path))
    with pytest.raises(BadData, match="no such file"):
        read_pass_rates(str(tmp_path / "none.jsonl"))
