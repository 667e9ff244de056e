"""Pass rates: given, and measured with answers that are there already."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from recipes.deepcoder.data.difficulty import difficulty, measure, read_rates
from recipes.deepcoder.data.preparation_config import DifficultyConfig
from recipes.deepcoder.data.preparation_loader import load_config
from recipes.deepcoder.data.problem_records import Kept, Records, Removed
from verl_pipeline.evaluation.data import BadData
from verl_pipeline.quickstart.problems import load_problems

QUIET = Console(quiet=True)


@pytest.fixture
def records(prepare, tmp_path) -> Records:
    """Four of the quickstart's problems."""
    outcome = prepare(
        "sources={quickstart: {limit: 4}}", "length.max_tokens=6000", f"work={tmp_path / 'work'}"
    )
    return outcome.records


def answers(path: Path, rights: list[int], k: int) -> str:
    """A file in which problem i is answered rightly ``rights[i]`` times of ``k``."""
    rows = []
    for problem, right in zip(load_problems(), rights, strict=False):
        for sample in range(k):
            wrong = f"def {problem.entry_point}(*arguments):\n    return 'wrong'"
            program = problem.reference if sample < right else wrong
            rows.append(
                {"id": f"quickstart/{problem.name}", "response": f"```python\n{program}\n```"}
            )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(k: int):
    given = [
        "sources={quickstart: {}}",
        "model=quickstart",
        "difficulty.mode=measure",
        "difficulty.temperature=1.0",
    ]
    return load_config(None, [*given, f"difficulty.k={k}"])


def test_rates_are_shares_of_samples_and_are_measured_once(records, tmp_path):
    model = answers(tmp_path / "answers.jsonl", [0, 1, 2, 4], 4)
    names = list(records.kept)
    rates = measure(records, settings(4), model, "weights", tmp_path / "measured", QUIET)
    assert rates == dict(zip(names, [0.0, 0.25, 0.5, 1.0], strict=True))
    store = (tmp_path / "measured" / "rates.jsonl").read_bytes()
    # Nothing is asked any more: the answers are gone.
    assert (
        measure(
            records,
            settings(4),
            str(tmp_path / "none.jsonl"),
            "weights",
            tmp_path / "measured",
            QUIET,
        )
        == rates
    )
    assert (tmp_path / "measured" / "rates.jsonl").read_bytes() == store
    decided = list(difficulty(records, rates, DifficultyConfig(mode="measure")))
    assert [type(one) for one in decided] == [Removed, Kept, Kept, Removed]
    assert [one.reason for one in decided if isinstance(one, Removed)] == ["too hard", "too easy"]
    assert [one.fields["pass_rate"] for one in decided if isinstance(one, Kept)] == [0.25, 0.5]


def test_a_problem_whose_samples_failed_is_left_out_and_asked_again(records, tmp_path):
    path = tmp_path / "answers.jsonl"
    model = answers(path, [1, 1, 1, 1], 4)
    whole = path.read_text()
    path.write_text(
        "".join(whole.splitlines(keepends=True)[:-1])
    )  # the last sample of the last problem fails
    names = list(records.kept)
    rates = measure(records, settings(4), model, "weights", tmp_path / "measured", QUIET)
    assert rates == dict.fromkeys(names[:3], 0.25)
    *_, last = difficulty(records, rates, DifficultyConfig(mode="measure"))
    assert isinstance(last, Removed) and last.reason == "no pass rate" and last.passing
    path.write_text(whole)
    assert measure(
        records, settings(4), model, "weights", tmp_path / "measured", QUIET
    ) == dict.fromkeys(names, 0.25)


def test_another_model_is_measured_anew(records, tmp_path):
    first = answers(tmp_path / "first.jsonl", [4] * 4, 4)
    second = answers(tmp_path / "second.jsonl", [0] * 4, 4)
    assert set(
        measure(records, settings(4), first, "a", tmp_path / "measured", QUIET).values()
    ) == {1.0}
    assert set(
        measure(records, settings(4), second, "b", tmp_path / "measured", QUIET).values()
    ) == {0.0}


def test_a_row_without_a_given_rate_is_listed(records):
    decided = list(difficulty(records, {}, DifficultyConfig(mode="given", rates="rates.jsonl")))
    assert all(
        isinstance(one, Removed) and one.detail == "not in rates.jsonl" and not one.passing
        for one in decided
    )


@pytest.mark.parametrize(
    "line", ['{"id": "a"}', '{"rate": 0.5}', '{"id": "a", "rate": 2}', '{"id": "a", "rate": "x"}']
)
def test_rates_that_are_none_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "rates.jsonl"
    path.write_text('{"id": "x", "rate": 1}\n' + line + "\n")
    with pytest.raises(BadData, match=r"rates.jsonl:2: an id and a rate from 0 to 1"):
        read_rates(str(path))
    with pytest.raises(BadData, match="no such file"):
        read_rates(str(tmp_path / "none.jsonl"))
