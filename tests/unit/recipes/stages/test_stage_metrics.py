"""Merged metrics of attempts, against a plain model of kept and lost steps."""

import json

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.recipes.deepcoder.stages.run_state import StageAttempt
from verl_pipeline.recipes.deepcoder.stages.stage_metrics import (
    get_attempt_folder,
    merge_attempts,
    write_merged_metrics,
)


def write_attempt(stage, number, records, rest=""):
    folder = get_attempt_folder(stage, number)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in records)
    (folder / "metrics.jsonl").write_text(lines + rest)


@given(attempts=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 6)), min_size=1, max_size=5))
def test_a_later_attempt_replaces_the_steps_after_its_checkpoint(tmp_path_factory, attempts):
    """``attempts``: how many steps each one goes back, and how many it trains."""
    stage = tmp_path_factory.mktemp("stage")
    expected, records, reached = {}, [], 0
    for number, (back, steps) in enumerate(attempts, start=1):
        resumed = max(0, reached - back)
        write_attempt(
            stage,
            number,
            [(step, {"attempt": number}) for step in range(resumed + 1, resumed + steps + 1)],
        )
        records.append(StageAttempt(number, resumed))
        expected = {step: value for step, value in expected.items() if step <= resumed}
        expected |= {step: {"attempt": number} for step in range(resumed + 1, resumed + steps + 1)}
        reached = resumed + steps
    assert merge_attempts(stage, records) == expected
    assert list(merge_attempts(stage, records)) == sorted(expected)


def test_a_line_cut_off_by_a_kill_is_ignored(tmp_path):
    write_attempt(tmp_path, 1, [(1, {"a": 1.0})], rest='{"step": 2, "da')
    assert merge_attempts(tmp_path, [StageAttempt(1, 0)]) == {1: {"a": 1.0}}


def test_a_validation_before_training_is_added_to_its_step(tmp_path):
    write_attempt(tmp_path, 1, [(1, {"reward": 0.5})])
    write_attempt(tmp_path, 2, [(1, {"val": 0.7}), (2, {"reward": 0.6})])
    found = merge_attempts(tmp_path, [StageAttempt(1, 0), StageAttempt(2, 1)])
    assert found == {1: {"reward": 0.5, "val": 0.7}, 2: {"reward": 0.6}}
    write_merged_metrics(tmp_path, found)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, "data": data} for step, data in found.items()]
