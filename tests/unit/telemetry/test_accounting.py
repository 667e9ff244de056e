"""The bills: every second has one name, planted delays have theirs, the ideal is never longer."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.bills import check_bill, check_bills
from tests.helpers.command_fuzz import efforts, fuzz
from tests.helpers.made_up_run import write_run
from tests.helpers.repository import ROOT
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.telemetry.accounting import (
    bill_run,
    bill_steps,
    compute_ideal_step,
    is_overlapped,
    measure_efficiency,
    measure_parts,
)
from verl_pipeline.telemetry.records import FOLDER, Moment, Pool, Span, TrajectoryEvent
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.telemetry.states import CAUSES, STATES

MODES = ("one_off_pipeline", "sync", "separate_async")
BASE = MadeUpRun(steps=5, prompts=8, group=8, spread=0.3, save_every=2)
seconds = st.floats(0, 40)

runs = st.builds(
    MadeUpRun,
    mode=st.sampled_from(MODES),
    staleness=st.integers(0, 1),
    steps=st.integers(1, 4),
    prompts=st.integers(1, 5),
    group=st.integers(1, 4),
    replicas=st.integers(1, 3),
    slots=st.none() | st.integers(1, 20),
    phases=st.dictionaries(
        st.sampled_from(["old_log_prob", "ref", "adv", "update_actor"]), seconds
    ),
    reward_s=seconds,
    reward_workers=st.none() | st.integers(1, 3),
    slow_replicas=st.dictionaries(st.integers(0, 2), st.floats(1, 5)),
    sync_s=seconds,
    start_s=seconds,
    save_every=st.integers(0, 2),
    test_every=st.integers(0, 2),
    filtered_share=st.floats(0, 1),
    killed_at=st.none() | st.floats(1, 200),
    seed=st.integers(0, 3),
)
# Whatever else a run might have written, in whatever order.
times = st.floats(START - 50, START + 400)
spans = st.builds(
    lambda pool, name, t, length, step: Span(pool, "driver", name, t, t + length, step),
    st.sampled_from(list(Pool)),
    st.sampled_from(["step", "testing", "save_checkpoint", "wait_rollout", "start", "end", "what"]),
    times,
    st.floats(0, 300),
    st.none() | st.integers(0, 6),
)
events = st.builds(
    TrajectoryEvent,
    moment=st.sampled_from(list(Moment)),
    t=times,
    prompt=st.sampled_from(["b1p0", "b2p0", "x"]),
    session=st.none() | st.integers(0, 2),
    batch=st.none() | st.integers(0, 3),
    step=st.none() | st.integers(0, 3),
    is_validation=st.booleans(),
    replica=st.none() | st.sampled_from(["replica 0", "replica 1", "r"]),
    response_tokens=st.none() | st.integers(-3, 1000),
)


def add_records(folder, kind, records):
    path = folder / FOLDER / f"{kind}-other-node0-9-0.jsonl"
    path.write_text("".join(json.dumps(vars(record)) + "\n" for record in records))


@efforts(quick=25, many=1000)
def test_the_seconds_of_a_pool_sum_to_its_window_whatever_a_run_wrote(effort):
    @fuzz(effort)
    @given(run=runs, spans=st.lists(spans, max_size=6), events=st.lists(events, max_size=8))
    def check(run, spans, events):
        check_run(run, spans, events)

    check()


def check_run(run, spans, events):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, run)
        add_records(folder, "spans", spans)
        add_records(folder, "trajectories", events)
        loaded = load_run(folder)
    check_bills(loaded)
    if not spans and not events and run.killed_at is None:
        assert len(bill_steps(loaded)) == 3 * run.steps
    for part in measure_parts(loaded):
        assert compute_ideal_step(part, is_overlapped(loaded)) <= part.step_s + 1e-6
    efficiency = measure_efficiency(loaded).efficiency
    assert efficiency is None or 0 <= efficiency <= 1 + 1e-9


def bill(tmp_path, run, pool=Pool.TRAINER):
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    story = write_run(folder, run)
    (found,) = [bill for bill in bill_run(load_run(folder)) if bill.pool == pool]
    return story, found


PLANTED = {
    # What is planted, the seconds it adds, where they must be found.
    "slow reward": (replace(BASE, reward_s=BASE.reward_s + 20), 20 * BASE.steps, "reward"),
    "slow sync": (replace(BASE, sync_s=BASE.sync_s + 12), 12 * BASE.steps, "weights"),
    "slow checkpoint": (replace(BASE, save_s=BASE.save_s + 14), 14 * 2, "checkpoint"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delay", PLANTED)
def test_a_planted_delay_is_found_under_its_own_cause(tmp_path, delay, mode):
    run, seconds, cause = PLANTED[delay]
    # Slow in generation, so that nothing hides the delay, with a known batch for each wait.
    change = {"mode": mode, "phases": {"update_actor": 1.0}}
    base = replace(BASE, **change)
    before, after = bill(tmp_path, base)[1], bill(tmp_path, replace(run, **change))[1]
    if delay == "slow sync" and mode != "one_off_pipeline":
        seconds += 12  # these send weights after the last step, too
    if delay == "slow reward" and mode == "separate_async":
        # What is graded while the next batch is generated delays nobody.
        longer = after.end - before.end
        assert after.causes["reward"] - before.causes["reward"] == pytest.approx(longer, rel=0.1)
        return
    found = after.causes[cause] - before.causes.get(cause, 0.0)
    assert found == pytest.approx(seconds, rel=0.1)
    named = {"reward": "wait_reward", "weights": "weight_sync", "checkpoint": "checkpoint"}[cause]
    assert after.seconds[named] - before.seconds[named] == pytest.approx(seconds, rel=0.1)


def test_a_slow_reward_is_no_cost_of_the_checkpoint_that_drains_for_it(tmp_path):
    base = replace(BASE, phases={"update_actor": 1.0}, save_every=1)
    before, after = bill(tmp_path, base)[1], bill(tmp_path, replace(base, reward_s=20.5))[1]
    for name, planted in (("wait_reward", 20.0 * BASE.steps), ("checkpoint", 0.0)):
        gained = after.seconds[name] - before.seconds[name]
        assert gained == pytest.approx(planted, rel=0.1, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_trainer_is_found_as_the_cause_of_the_rollout_pools_wait(tmp_path, mode):
    base = replace(BASE, mode=mode, phases={"update_actor": 30.0})
    slow = replace(base, phases={"update_actor": 60.0})
    trainers = [bill(tmp_path, run)[1] for run in (base, slow)]
    planted = 30.0 * BASE.steps
    gained = trainers[1].seconds["update"] - trainers[0].seconds["update"]
    assert gained == pytest.approx(planted, rel=0.1)
    pools = [bill(tmp_path, run, Pool.ROLLOUT)[1] for run in (base, slow)]
    waits = pools[1].causes["training"] - pools[0].causes["training"]
    # The last batch is sampled beside the step before its own; then nothing is left to generate.
    after_last = 0.0 if mode == "sync" else 60.0
    assert waits == pytest.approx(planted - after_last, rel=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_replica_is_found_as_the_cause_of_the_trainers_wait(tmp_path, mode):
    base = replace(BASE, mode=mode, phases={"update_actor": 1.0}, prompts=16, spread=0.05)
    stories, bills = zip(
        *(bill(tmp_path, run) for run in (base, replace(base, slow_replicas={1: 2.5}))), strict=True
    )
    longer = sum(stories[1].step_s) - sum(stories[0].step_s)
    assert bills[1].causes["slow replica"] == pytest.approx(longer, rel=0.1)
    assert "slow replica" not in bills[0].causes


def test_the_tail_names_who_is_waited_for_and_how_long(tmp_path):
    story = write_run(tmp_path, replace(BASE, phases={"update_actor": 1.0}, spread=0.9))
    run = load_run(tmp_path)
    tails = measure_efficiency(run).tail_prompts
    rows = {(row["prompt"], row["session"]): row for row in run.trajectories.to_pylist()}
    longest = max(
        (row["generated"] - row["started"], key) for key, row in rows.items() if row["batch"] == 2
    )[1]
    assert longest in [(tail.prompt, tail.session) for tail in tails]
    assert [tail.waited_s for tail in tails] == sorted((t.waited_s for t in tails), reverse=True)
    (whole,) = [bill for bill in bill_run(run) if bill.pool == Pool.TRAINER]
    assert 0 < tails[0].waited_s <= whole.causes["tail of generation"]
    assert sum(story.step_s) > whole.causes["tail of generation"]


def test_the_time_between_two_starts_is_nobodys(tmp_path):
    write_run(tmp_path, replace(BASE, killed_at=60.0))
    header = json.loads((tmp_path / FOLDER / "run-driver-node0-1-0.jsonl").read_text())
    header |= {"started": START + 1000, "first_step": 2}
    (tmp_path / FOLDER / "run-driver-node0-8-0.jsonl").write_text(json.dumps(header) + "\n")
    start = Span(Pool.TRAINER, "driver", "start", START + 1000, START + 1010)
    add_records(tmp_path, "spans", [start])
    for found in bill_run(load_run(tmp_path))[:2]:
        check_bill(found)
        assert found.seconds["down"] == pytest.approx(940, abs=3)


def test_a_run_that_still_writes_is_billed_up_to_its_last_record(tmp_path):
    story = write_run(tmp_path, replace(BASE, killed_at=70.0))
    run = load_run(tmp_path)
    assert not run.has_ended
    assert bill_run(run)[0].end == pytest.approx(run.last_time, abs=1e-5)
    complete = int(np.searchsorted(np.cumsum(story.step_s) + BASE.start_s + BASE.sync_s, 70.0))
    assert len(bill_steps(run)) == 3 * complete


def test_the_page_explains_every_name():
    page = (ROOT / "docs" / "accounting-names.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{name}` | {meaning} |"
        for names in (*STATES.values(), CAUSES)
        for name, meaning in names.items()
    ]
    assert [row for row in rows if row in expected] == expected
