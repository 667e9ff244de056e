"""A real run of each mode leaves the spans, gauges and trajectories of what it did."""

import gzip
import json
import math
import re
from collections import defaultdict

import pytest

from benchmarks.verl_modes import SEPARATE_ASYNC
from tests.helpers.bills import check_bills
from tests.helpers.training_run import list_unknown_metrics, tail
from verl_pipeline.telemetry.accounting import measure_efficiency
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.telemetry.span_text import read_spans
from verl_pipeline.testing import long_tail, runs, tiny_run

ROLLOUT = "actor_rollout_ref.rollout"
STEPS, BATCH, GROUP = 3, 4, 4
SEPARATE = [
    f"{ROLLOUT}.nnodes=1",
    f"{ROLLOUT}.n_gpus_per_node=1",
]
PIPELINE = "trainer.v1.one_off_pipeline"
STALENESS = 2
# Past the barrier: two replicas, some responses far longer than the others.
FLOWING = [
    f"{ROLLOUT}.nnodes=1",
    f"{ROLLOUT}.n_gpus_per_node=2",
    f"{ROLLOUT}.max_model_len=240",
    f"+{ROLLOUT}.agent.agent_loop_manager_class={long_tail.MANAGER}",
    f"data.max_response_length={long_tail.LONG}",
    f"{PIPELINE}.staleness={STALENESS}",
]
MODES = {
    "one_off_pipeline": SEPARATE,
    "sync": [],
    "sync_filtered": [],
    "colocate_async": [],
    "separate_async": [*SEPARATE_ASYNC, f"{ROLLOUT}.n_gpus_per_node=1"],
    "rolling": [*FLOWING, f"{PIPELINE}.weight_sync_mode=rolling"],
    "in_flight": [*FLOWING, f"{PIPELINE}.weight_sync_mode=in_flight"],
}
FLOWS = ("rolling", "in_flight")
OURS = ("one_off_pipeline", *FLOWS)
# Modes whose pools are the same devices.
SHARED = ("sync", "sync_filtered", "colocate_async")
LIFE = ["submitted", "started", "generated", "graded", "trained"]


def run_mode(folder, mode):
    overrides = [
        *tiny_run.make_overrides(folder, batch=BATCH, n=GROUP),
        f"trainer.v1.trainer_mode={'one_off_pipeline' if mode in OURS else mode}",
        "trainer.n_gpus_per_node=1",
        f"trainer.total_training_steps={STEPS}",
        "trainer.test_freq=2",
        "trainer.v1.one_off_pipeline.telemetry.texts_per_step=2",
        *MODES[mode],
    ]
    run = runs.run_training(folder, overrides)
    assert run.returncode == 0, tail(run)
    return run


def read_records(folder, kind):
    """Records by the role of their process."""
    found = defaultdict(list)
    for path in sorted((folder / "run/telemetry").glob(f"{kind}-*")):
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        assert text.endswith(b"\n")
        role = path.name.removeprefix(f"{kind}-").split("-")[0]
        found[role] += [json.loads(line) for line in text.splitlines()]
    return found


def check_headers(folder, mode):
    records = read_records(folder, "run")
    others = ["agent_loop", "trainer", "reward", *(["dispatcher"] if mode in FLOWS else [])]
    assert set(records) == {"driver", *others}
    driver = records["driver"][0]
    assert driver["mode"] == ("one_off_pipeline" if mode in OURS else mode)
    if mode in OURS:
        assert driver["weight_sync_mode"] == (mode if mode in FLOWS else "drained")
    assert driver["settings"]["data"]["train_batch_size"] == BATCH
    assert (driver["first_step"], driver["last_step"]) == (1, STEPS)
    assert driver["replicas"] == (2 if mode in FLOWS else 1)
    assert driver.get("shares_devices", False) == (mode in SHARED)
    for role in others:
        header, *clocks = records[role]
        assert header["role"] == role and "settings" not in header
        # All are processes of this machine.
        assert clocks and all(abs(c["offset_s"]) <= c["error_s"] + 0.1 for c in clocks)


def check_spans(folder, mode):
    records = read_records(folder, "spans")
    lanes = defaultdict(list)
    for span in [one for spans in records.values() for one in spans]:
        assert span["start"] <= span["end"]
        lanes[span["lane"]].append(span)
    driver = lanes["driver"]
    steps = [span for span in driver if span["name"] == "step"]
    assert [span["step"] for span in steps] == list(range(1, STEPS + 1))
    (start,) = [span for span in driver if span["name"] == "start"]
    for before, after in zip([start, *steps], steps, strict=False):
        assert before["end"] == after["start"]
    (end,) = [span for span in driver if span["name"] == "end"]
    assert end["start"] >= steps[-1]["end"] and "detail" not in end
    for step in steps:
        names = {
            span["name"]
            for span in driver
            if step["start"] <= span["start"] and span["end"] <= step["end"]
        }
        assert names >= {"step", "wait_rollout", "old_log_prob", "adv", "update_actor"}
        assert ("testing" in names) == (step["step"] in (2, STEPS))
    # Inside one another or apart.
    for spans in lanes.values():
        for one in spans:
            for other in spans:
                is_apart = other["end"] <= one["start"] or one["end"] <= other["start"]
                is_inside = one["start"] <= other["start"] and other["end"] <= one["end"]
                contains = other["start"] <= one["start"] and one["end"] <= other["end"]
                assert is_apart or is_inside or contains, (one, other)
    ranks = [span["name"] for span in lanes["rank 0"]]
    assert ranks.count("update_actor") == STEPS and ranks.count("old_log_prob") >= STEPS
    if mode in FLOWS:
        check_loads(lanes)
    else:
        sent = [span for span in lanes["replica 0"] if span["name"] == "update_weights"]
        assert len(sent) >= STEPS - 1
    rewards = sum(
        span["detail"]["rewards"]
        for lane, spans in lanes.items()
        if lane.startswith("reward worker ")
        for span in spans
    )
    assert rewards >= STEPS * BATCH * GROUP


def check_loads(lanes):
    """The trainer publishes each version, and the replicas load them, the newest at the time."""
    published = {
        span["detail"]["version"]: span
        for span in lanes["driver"]
        if span["name"] == "update_weights"
    }
    assert list(published) == list(range(1, STEPS + 1))  # v_0 is part of the start
    for lane in ("replica 0", "replica 1"):
        assert {span["name"] for span in lanes[lane]} == {"load_weights"}
        versions = [span["detail"]["version"] for span in lanes[lane]]
        assert versions[0] == 0 and versions == sorted(set(versions))
        for span in lanes[lane][1:]:
            assert published[span["detail"]["version"]]["start"] <= span["start"]


def check_flow(folder, mode, trained):
    """Each has its place on a replica before it is generated, and tells who sampled what."""
    mixed = 0
    for life in trained.values():
        begun, generated, k = life["begun"], life["generated"], life["trained"]["step"]
        assert begun["replica"] == generated["replica"]
        assert begun["t"] <= generated["first_token"] and begun["batch"] == k
        assert max(k - 1 - STALENESS, 0) <= generated["first_version"]
        assert generated["last_version"] < k
        spans = read_spans(generated.get("version_spans"))
        assert (spans is not None) == (generated["first_version"] < generated["last_version"])
        if spans is not None:
            mixed += 1
            versions = [version for version, _ in spans]
            assert versions == sorted(set(versions))
            assert (versions[0], versions[-1]) == (
                generated["first_version"],
                generated["last_version"],
            )
            assert sum(tokens for _, tokens in spans) == generated["response_tokens"]
    # In flight these few steps may see none; `test_past_the_barrier.py` waits for some.
    assert mode == "in_flight" or not mixed
    replicas = {life["generated"]["replica"] for life in trained.values()}
    assert replicas == {"replica 0", "replica 1"}
    run = load_run(folder / "run")
    limits = measure_efficiency(run)
    assert 0 < limits.ideal_step_s <= limits.step_s
    assert run.header.schedule == f"one_off_pipeline, {mode}, staleness {STALENESS}"
    assert advise(run).bound == limits.bound


def check_trajectories(folder, mode):
    records = read_records(folder, "trajectories")
    prompts, lives = {}, defaultdict(dict)
    for event in [one for events in records.values() for one in events]:
        if event["moment"] == "submitted":
            assert event["prompt"] not in prompts
            prompts[event["prompt"]] = event
        else:
            life = lives[event["prompt"], event["session"]]
            assert event["moment"] not in life
            life[event["moment"]] = event
    trained = {key: life for key, life in lives.items() if "trained" in life}
    assert len(trained) == STEPS * BATCH * GROUP
    for (prompt, _session), life in trained.items():
        life["submitted"] = prompts[prompt]
        moments = LIFE if mode not in FLOWS else [*LIFE[:2], "begun", *LIFE[2:]]
        times = [life[moment]["t"] for moment in moments]
        assert times == sorted(times), life
        generated = life["generated"]
        assert mode in FLOWS or generated["replica"] == "replica 0"
        assert 0 <= generated["first_version"] <= generated["last_version"] < STEPS
        limit = long_tail.LONG if mode in FLOWS else tiny_run.RESPONSE_LENGTH
        assert 0 < generated["response_tokens"] <= generated["limit"] <= limit
        assert life["started"]["t"] <= generated["first_token"] <= generated["t"]
        assert 0 <= life["graded"]["reward"] <= 1
        assert re.fullmatch(r"reward worker \d+", life["graded"]["reward_worker"])
        assert ("batch" in life["started"]) == (mode in OURS)
    per_step = defaultdict(int)
    for life in trained.values():
        per_step[life["trained"]["step"]] += 1
    assert per_step == dict.fromkeys(range(1, STEPS + 1), BATCH * GROUP)
    if mode in FLOWS:
        check_flow(folder, mode, trained)
    validations = [life for life in lives.values() if life["started"]["is_validation"]]
    assert len(validations) == 2 * 4 and all("graded" in life for life in validations)
    assert not read_records(folder, "problems")


def check_steps(folder, run):
    records = read_records(folder, "steps")["driver"]
    assert [record["step"] for record in records] == list(run.metrics)
    for step, metrics in run.metrics.items():
        (record,) = [one for one in records if one["step"] == step]
        assert record["metrics"] == pytest.approx(metrics)
        assert 0 < metrics["pipeline/busy/trainer"] < 1
        # A step shorter than the pause between two readings of the engines may have none.
        assert "pipeline/busy/rollout" in metrics or metrics["timing_s/step"] < 2
        assert 0 <= metrics.get("pipeline/busy/rollout", 0) <= 1
        assert metrics["pipeline/trained_tokens_per_s"] > 0
        assert 0 <= metrics["pipeline/tail_s"]
    lines = [line for line in run.output.splitlines() if f"/{STEPS} | reward" in line]
    assert len(lines) == STEPS and "staleness" in lines[-1]
    assert "actor/grad_norm" not in run.output
    assert (folder / "run/steps.log").read_text().count("actor/grad_norm:") == STEPS
    texts = read_records(folder, "texts")["driver"]
    assert [text["step"] for text in texts] == [1, 1, 2, 2, 3, 3]
    assert all("write a" in text["prompt_text"] for text in texts)
    assert all(text["ground_truth"] == tiny_run.TARGET for text in texts)
    for text in texts:
        # Absent of a response that several versions sampled.
        assert all(count > 0 for _version, count in text.get("token_versions", [[0, 1]]))


def check_gauges(folder, mode):
    gauges = read_records(folder, "gauges")["driver"]
    lanes = {"replica 0", "replica 1"} if mode in FLOWS else {"replica 0"}
    assert {gauge["lane"] for gauge in gauges} == lanes
    tokens = [gauge["generated_tokens"] for gauge in gauges if gauge["lane"] == "replica 0"]
    assert tokens == sorted(tokens) and tokens[-1] > 0
    for name in ("running", "waiting", "kv_share", "preemptions", "prefix_hits", "prefix_queries"):
        assert all(math.isfinite(gauge[name]) for gauge in gauges)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_run_leaves_what_it_did(mode, tmp_path):
    run = run_mode(tmp_path, mode)
    assert run.survivors == [] and run.leftovers == []
    # The table does not have all of verl's other modes.
    unknown = [name for name in list_unknown_metrics(run) if name.startswith("pipeline/")]
    assert unknown == []
    check_headers(tmp_path, mode)
    check_spans(tmp_path, mode)
    check_trajectories(tmp_path, mode)
    check_steps(tmp_path, run)
    check_gauges(tmp_path, mode)
    check_bills(tmp_path / "run")
