"""Every row of the acceptance table can fail, by itself and by name."""

import copy
from dataclasses import replace

import pytest

from verl_pipeline.acceptance.checks import list_rows
from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import Plan
from verl_pipeline.acceptance.rows import Verdict
from verl_pipeline.testing import tiny_run
from verl_pipeline.testing.runs import Run
from verl_pipeline.trainer.schedule import oldest_allowed_version

PLAN = Plan(tiny_run.DEFAULT_SIZES, prompts=4, micro_batch=8)
TOKENS = {character: 3 + index for index, character in enumerate(tiny_run._CHARACTERS)}


def encode(text: str) -> list[int]:
    return [TOKENS[character] for character in text.replace(" ", "\u0120")]


def make_record(step: int, row: int, session: int) -> dict:
    text = "abc"[: 1 + session % 3] + str(row)
    return {
        "step": step,
        "index": row,
        "session": session,
        "prompt": [1, *encode(tiny_run.make_prompt(row)), 2],
        "response": [*encode(text), 2],
        "reward": tiny_run.compute_text_score("", text, ""),
        "versions": [oldest_allowed_version(step, 1)] * 2,
    }


def make_outcome() -> Outcome:
    """A run at which nothing is wrong."""
    records = [
        make_record(step, row, session)
        for step in range(1, PLAN.steps + 1)
        for row in PLAN.list_rows(step)
        for session in range(PLAN.samples)
    ]
    metrics = {}
    for step in range(1, PLAN.steps + 1):
        batch = [record for record in records if record["step"] == step]
        metrics[step] = {
            "actor/grad_norm": 0.5,
            "actor/pg_loss": -0.01,
            "timing_s/step": 2.0,
            "pipeline/staleness": min(step - 1, 1),
            "pipeline/batch/generating_s": 1.0,
            "pipeline/infrastructure/share": 0.0,
            "filters/skipped_update": 0.0,
            "filters/before/reward_mean": sum(r["reward"] for r in batch) / len(batch),
            "filters/before/response_length_mean": sum(len(r["response"]) for r in batch)
            / len(batch),
            "pipeline/weights/checked_tensors": 27.0,
            "pipeline/weights/unchecked_tensors": 0.0,
            "pipeline/weights/log_prob_gap": 1e-5,
        }
        if step > 1:
            metrics[step] |= {
                "pipeline/weight_sync/count": 1.0,
                "pipeline/weight_sync/seconds": 0.5,
                "pipeline/weight_sync/bytes": 1e6,
                "pipeline/weight_sync/aborted_requests": 0.0,
            }
    return Outcome(Run(0, "", metrics, records, [], []), 60.0)


def change(outcome: Outcome, **fields) -> Outcome:
    return replace(outcome, run=replace(outcome.run, **fields))


def change_metric(step, name, value):
    def apply(outcome):
        outcome.run.metrics[step][name] = value
        return outcome

    return apply


def change_record(name, value, number=0):
    def apply(outcome):
        outcome.run.trajectories[number][name] = value
        return outcome

    return apply


def drop_metric(step, name):
    def apply(outcome):
        del outcome.run.metrics[step][name]
        return outcome

    return apply


def swap_prompts(outcome):
    first, second = outcome.run.trajectories[0], outcome.run.trajectories[5]
    first["prompt"], second["prompt"] = second["prompt"], first["prompt"]
    return outcome


def swap_rewards(outcome):
    first, second = outcome.run.trajectories[0], outcome.run.trajectories[1]
    first["reward"], second["reward"] = second["reward"], first["reward"]
    return outcome


def repeat_session(outcome):
    outcome.run.trajectories[0]["session"] = 1
    return outcome


def sample_a_fourth_batch(outcome):
    row = PLAN.list_rows(PLAN.steps + 1)[0]
    outcome.run.trajectories.append(make_record(PLAN.steps + 1, row, 0))
    return outcome


def empty_a_response(outcome):
    record, metrics = outcome.run.trajectories[0], outcome.run.metrics[1]
    metrics["filters/before/response_length_mean"] -= len(record["response"]) / 16
    metrics["filters/before/reward_mean"] -= record["reward"] / 16
    record |= {"response": [], "reward": 0.0}
    return outcome


def test_a_good_run_passes_every_row():
    rows = list_rows(make_outcome(), PLAN)
    assert {row.verdict for row in rows} == {Verdict.PASSED}, rows
    details = {row.name: row.detail for row in rows}
    assert "2.0 MB/s" in details["weight sync"]
    assert "27 tensors" in details["weights"] and "1.0e-05" in details["weights"]
    assert "48 responses" in details["responses"] and "tokens/s" in details["responses"]
    assert details["run"].startswith("ended well after 60 s, of which the steps took 6.0 s")


@pytest.mark.parametrize(
    ("name", "plant", "words"),
    [
        (
            "run",
            lambda o: change(o, returncode=1, output="  f()\nValueError: no"),
            "ValueError: no",
        ),
        ("run", lambda o: change(o, returncode=-9), "killed by signal 9"),
        ("run", lambda o: replace(o, is_late=True), "not at its end after 60 s, with 3 of 3 steps"),
        ("updates", change_metric(2, "actor/grad_norm", 0.0), "step 2: it has changed no weight"),
        ("updates", change_metric(3, "actor/grad_norm", None), "step 3: actor/grad_norm is None"),
        (
            "updates",
            change_metric(1, "actor/pg_loss", float("nan")),
            "step 1: actor/pg_loss is nan",
        ),
        ("updates", change_metric(1, "filters/skipped_update", 1.0), "it has changed no weight"),
        ("versions", change_metric(3, "pipeline/staleness", 0), "staleness is 0, not 1"),
        ("versions", drop_metric(2, "pipeline/staleness"), "staleness is None, not 1"),
        ("versions", change_record("versions", [0, 1], 47), "the versions [0, 1], not v_1"),
        ("versions", change_record("versions", [None, None]), "[None, None], not v_0"),
        ("batches", repeat_session, "batch 1: 1 responses to rows 0 missing"),
        ("batches", swap_prompts, "row 0 has the prompt 'row 1: write a'"),
        ("batches", sample_a_fourth_batch, "batch 4 was sampled, and no step trains it"),
        ("responses", empty_a_response, "batch 1: responses of 0 to"),
        (
            "responses",
            change_metric(1, "filters/before/response_length_mean", 7.0),
            "response_length_mean is 7, of what was sampled it is 3",
        ),
        ("rewards", change_record("reward", 0.123), "batch 1: 1 of 16 rewards are not those of"),
        ("rewards", change_record("reward", None), "the first is None"),
        ("rewards", swap_rewards, "batch 1: 2 of 16 rewards"),
        ("rewards", change_metric(2, "filters/before/reward_mean", 0.0), "reward_mean is 0, of"),
        ("rewards", drop_metric(2, "filters/before/reward_mean"), "reward_mean is None, of"),
        (
            "rewards",
            change_metric(2, "pipeline/infrastructure/share", 0.0625),
            "step 2: 6.3 % of its responses failed",
        ),
        ("weight sync", drop_metric(3, "pipeline/weight_sync/count"), "step 3: no weight sync"),
        (
            "weight sync",
            change_metric(2, "pipeline/weight_sync/aborted_requests", 2.0),
            "step 2: a weight sync has interrupted 2 requests",
        ),
        ("processes", lambda o: change(o, survivors=["VLLM::EngineCore"]), "VLLM::EngineCore"),
        ("files", lambda o: change(o, leftovers=["/dev/shm/psm_1"]), "left behind: /dev/shm/psm_1"),
    ],
)
def test_a_fault_fails_its_own_row_and_no_other(name, plant, words):
    rows = list_rows(plant(make_outcome()), PLAN)
    failed = [row for row in rows if row.verdict is not Verdict.PASSED]
    assert [(row.name, row.verdict) for row in failed] == [(name, Verdict.FAILED)], failed
    assert words in failed[0].detail and failed[0].fix


ERROR = (
    "  raise WeightsDiffer(text)\n"
    "\x1b[36m(TaskRunner pid=7)\x1b[0m verl_pipeline.weight_sync.comparison.WeightsDiffer: "
    "replica 1 with v_1: model.layers.1.self_attn.k_proj.weight differs\n"
)


def test_weights_that_differ_fail_by_name():
    whole = make_outcome()
    metrics = {1: whole.run.metrics[1]}
    outcome = change(whole, returncode=1, metrics=metrics, output=ERROR)
    rows = {row.name: row for row in list_rows(outcome, PLAN)}
    assert rows["weights"].verdict is Verdict.FAILED
    assert rows["weights"].detail == (
        "replica 1 with v_1: model.layers.1.self_attn.k_proj.weight differs"
    )
    assert rows["run"].verdict is Verdict.FAILED and "k_proj" in rows["run"].detail
    # What the run did not reach is no failure; what it reached may be one.
    assert rows["versions"].verdict is Verdict.UNCHECKED


def test_weights_that_were_not_compared_after_each_sync_are_unchecked():
    outcome = make_outcome()
    outcome.run.metrics[3]["pipeline/weights/checked_tensors"] = 0.0
    (row,) = [row for row in list_rows(outcome, PLAN) if row.verdict is not Verdict.PASSED]
    assert (row.name, row.verdict) == ("weights", Verdict.UNCHECKED)
    assert row.detail == "compared after 2 of 3 weight syncs only"


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({}, "reports no fingerprint"),
        ({"checked_tensors": 0.0, "unchecked_tensors": 27.0}, "none of 27 tensors could be"),
    ],
)
def test_weights_without_a_fingerprint_are_unchecked(metrics, words):
    outcome = make_outcome()
    for data in outcome.run.metrics.values():
        for name in [name for name in data if name.startswith("pipeline/weights/")]:
            del data[name]
        data |= {f"pipeline/weights/{name}": value for name, value in metrics.items()}
    rows = [row for row in list_rows(outcome, PLAN) if row.verdict is not Verdict.PASSED]
    assert [(row.name, row.verdict) for row in rows] == [("weights", Verdict.UNCHECKED)]
    assert words in rows[0].detail


def test_bytes_that_an_engine_does_not_report_are_not_made_up():
    outcome = make_outcome()
    for data in outcome.run.metrics.values():
        data.pop("pipeline/weight_sync/bytes", None)
    (row,) = [row for row in list_rows(outcome, PLAN) if row.name == "weight sync"]
    assert row.verdict is Verdict.PASSED and "reports no bytes" in row.detail


def test_processes_of_a_ray_that_ran_before_are_unchecked():
    line = "INFO worker.py:1 -- Connecting to existing Ray cluster at address: 10.0.0.1:6379...\n"
    rows = {row.name: row for row in list_rows(change(make_outcome(), output=line), PLAN)}
    assert rows["processes"].verdict is Verdict.UNCHECKED
    assert "10.0.0.1:6379" in rows["processes"].detail


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_ends_early_fails_as_a_run_and_passes_nothing_it_did_not_reach(steps):
    whole = make_outcome()
    metrics = {step: data for step, data in whole.run.metrics.items() if step <= steps}
    # The batch that was being sampled is incomplete.
    records = [r for r in whole.run.trajectories if r["step"] <= steps + 1][:-3]
    outcome = change(whole, returncode=1, metrics=metrics, trajectories=records, output="error: x")
    verdicts = {row.name: row.verdict for row in list_rows(outcome, PLAN)}
    assert verdicts.pop("run") is Verdict.FAILED
    assert verdicts.pop("processes") is verdicts.pop("files") is Verdict.PASSED
    assert set(verdicts.values()) == {Verdict.UNCHECKED}


def test_a_fault_is_found_in_a_run_that_ends_early():
    outcome = make_outcome()
    wrong = copy.deepcopy(outcome.run.trajectories[0]) | {"session": 9}
    outcome.run.trajectories.append(wrong)
    metrics = {1: outcome.run.metrics[1]}
    rows = {
        row.name: row for row in list_rows(change(outcome, returncode=1, metrics=metrics), PLAN)
    }
    assert rows["batches"].verdict is Verdict.FAILED and "too many" in rows["batches"].detail
