"""Metrics of attempts, merged by step, against a plain model of what training kept and lost."""

import json

from hypothesis import given
from hypothesis import strategies as st

from recipes.deepcoder.stages.run_state import Attempt
from recipes.deepcoder.stages.stage_metrics import attempt_folder, merged, write_merged


def log(stage, number, records, rest=""):
    folder = attempt_folder(stage, number)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in records)
    (folder / "metrics.jsonl").write_text(lines + rest)


@given(attempts=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 6)), min_size=1, max_size=5))
def test_later_attempts_win_from_where_they_resumed(tmp_path_factory, attempts):
    """``attempts``: how far back each one resumes, and how many steps it trains."""
    stage = tmp_path_factory.mktemp("stage")
    expected, records, reached = {}, [], 0
    for number, (back, steps) in enumerate(attempts, start=1):
        resumed = max(0, reached - back)
        log(
            stage,
            number,
            [(step, {"attempt": number}) for step in range(resumed + 1, resumed + steps + 1)],
        )
        records.append(Attempt(number, resumed))
        expected = {step: value for step, value in expected.items() if step <= resumed}
        expected |= {step: {"attempt": number} for step in range(resumed + 1, resumed + steps + 1)}
        reached = resumed + steps
    assert merged(stage, records) == expected
    assert list(merged(stage, records)) == sorted(expected)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    log(tmp_path, 1, [(1, {"a": 1.0})], rest='{"step": 2, "da')
    assert merged(tmp_path, [Attempt(1, 0)]) == {1: {"a": 1.0}}


def test_a_validation_before_training_is_added_to_the_step_it_is_of(tmp_path):
    log(tmp_path, 1, [(1, {"reward": 0.5})])
    log(tmp_path, 2, [(1, {"val": 0.7}), (2, {"reward": 0.6})])
    found = merged(tmp_path, [Attempt(1, 0), Attempt(2, 1)])
    assert found == {1: {"reward": 0.5, "val": 0.7}, 2: {"reward": 0.6}}
    write_merged(tmp_path, found)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, "data": data} for step, data in found.items()]
