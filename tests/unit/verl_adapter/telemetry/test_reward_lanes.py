"""A reward worker records when it grades, in a lane of its own, and computes as it did."""

import asyncio
import json
import random

import pytest

from verl_pipeline.telemetry.recorder import Recorder, RunTarget
from verl_pipeline.verl_adapter.telemetry import reward_lanes
from verl_pipeline.verl_adapter.telemetry.reward_lanes import WatchedHandles, record_rewards

WORK_S = 0.02


class RewardManager:
    async def run_single(self, data):
        await asyncio.sleep(WORK_S)
        if data == "fails":
            raise RuntimeError("no reward")
        return {"reward_score": data}


class RewardLoopWorker:
    """verl's, as far as it finds its reward."""

    def __init__(self):
        self.reward_manager = RewardManager()

    async def compute_score(self, data):
        if data == "model":
            return await self.compute_score_disrm(data)
        return await self.reward_manager.run_single(data)

    async def compute_score_disrm(self, data):
        await asyncio.sleep(WORK_S)
        return {"reward_score": 0.25}


@pytest.fixture
def grade(tmp_path, made_header):
    """Grades what it is given, each group at once; the answers and the spans that are written."""

    def run(*groups, times=1):
        recorder = Recorder(RunTarget(str(tmp_path), made_header), "reward")
        worker = RewardLoopWorker()
        for _time in range(times):
            record_rewards(worker, recorder, 2)

        async def grade_all():
            return [
                await asyncio.gather(*map(worker.compute_score, group), return_exceptions=True)
                for group in groups
            ]

        answers = asyncio.run(grade_all())
        recorder.close()
        paths = (tmp_path / "telemetry").glob("spans-*.jsonl")
        return answers, [json.loads(line) for path in paths for line in path.open()]

    return run


@pytest.mark.parametrize("times", [1, 2])
def test_each_time_of_grading_is_one_span(grade, times):
    answers, spans = grade([1, "model", "fails"], [4], times=times)
    (one, model, failed), (last,) = answers
    assert (one, model, last) == (
        {"reward_score": 1},
        {"reward_score": 0.25},
        {"reward_score": 4},
    )
    assert isinstance(failed, RuntimeError)
    assert [span["detail"] for span in spans] == [{"rewards": 3}, {"rewards": 1}]
    assert {(s["pool"], s["lane"], s["name"]) for s in spans} == {
        ("reward", "reward worker 2", "reward")
    }
    assert all(span["end"] - span["start"] >= 0.9 * WORK_S for span in spans)
    assert spans[0]["end"] <= spans[1]["start"]


def test_long_grading_is_written_as_it_goes(grade, monkeypatch):
    monkeypatch.setattr(reward_lanes, "LONGEST_SPAN_S", 0.0)
    _, spans = grade([1, 2])
    assert [span["detail"]["rewards"] for span in spans] == [1, 1]
    assert spans[0]["end"] == spans[1]["start"]


def test_handles_are_those_that_were_given_and_tell_which_is_taken():
    taken, given = [], [object() for _ in range(4)]
    handles = WatchedHandles(given, taken.append)
    chosen = [random.choice(handles) for _ in range(20)]
    assert [given.index(handle) for handle in chosen] == taken and len(set(taken)) > 1
    taken.clear()
    assert list(handles) == given and handles[1:3] == given[1:3] and taken == []
