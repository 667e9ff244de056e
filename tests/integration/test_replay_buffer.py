"""The replay buffer on a real TransferQueue: order, failures, deadlines, lost prompts,
delays, rewards that are none.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import ray
import torch
import transfer_queue as tq
import verl.trainer.ppo.v1  # noqa: F401  (registers our trainers; they import each other)
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from tests.helpers.patience import scale_deadline
from verl_pipeline.filters.truncation import LengthLimits
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.trajectory_keys import make_prompt_key
from verl_pipeline.verl_adapter.rollout.rollout_pool import WorkerDead, probe_actors
from verl_pipeline.verl_adapter.trainers.filtering_replay_buffer import FilteringReplayBuffer
from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer
from verl_pipeline.verl_adapter.trajectories import in_order_replay_buffer
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    bound_waits,
    list_tags,
    put_errors,
    put_prompts,
    read_fields,
    read_tags,
    read_trajectories,
    remove_rows,
)

pytestmark = pytest.mark.timeout(300)

N = 3


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init()
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture
def buffer():
    made = InOrderReplayBuffer(
        deadline_s=scale_deadline(20), watchdog=lambda: None, watch_every_s=0.1
    )
    yield made
    keys = list((tq.kv_list("train") or {}).get("train", {}))
    if keys:
        tq.kv_clear(keys=keys, partition_id="train")


def submit(batch, positions, sessions=N):
    uids = [make_prompt_key(batch, position) for position in positions]
    tags = [
        {"is_prompt": True, "status": "running", "global_steps": batch, "sessions": sessions}
        for _ in uids
    ]
    tq.kv_batch_put(keys=uids, partition_id="train", tags=tags)
    return uids


def finish(uid, sessions=range(N), status="finished", errors=None):
    keys = [f"{uid}_{session}_0" for session in sessions]
    if keys:
        tags = [{"status": "success", "min_global_steps": 0, "max_global_steps": 0} for _ in keys]
        fields = TensorDict({"rewards": torch.zeros(len(keys))}, batch_size=len(keys))
        tq.kv_batch_put(keys=keys, partition_id="train", fields=fields, tags=tags)
    tag = {"status": status} | ({"errors": errors} if errors else {})
    tq.kv_put(key=uid, partition_id="train", tag=tag)


def test_loader_order_whatever_finishes_first_and_batches_do_not_mix(buffer):
    first, second = submit(1, range(12)), submit(2, range(2))
    for uid in [*second, *reversed(first)]:
        finish(uid, sessions=reversed(range(N)))
    batch, _metrics = buffer.sample(1, "train", 12)
    assert batch.keys == [f"{uid}_{session}_0" for uid in first for session in range(N)]
    assert buffer.reports.pop(1).missing == 0
    # The trainer removes the rows of batch 1 after training.
    assert buffer.find_held_batches().keys() == {1, 2}
    batch, _metrics = buffer.sample(2, "train", 2)
    assert len(batch.keys) == 2 * N


def test_failed_trajectories_are_missing_and_their_siblings_stay(buffer):
    one, two = submit(1, range(2))
    finish(one, sessions=[0, 2], status="failure", errors={"1": "Traceback ... planted"})
    finish(two)
    buffer.wait_until_sampled()
    batch, _metrics = buffer.sample(1, "train", 2)
    report = buffer.reports[1]
    assert (report.requested, report.missing) == (2 * N, 1)
    assert report.first_error == "Traceback ... planted"
    assert f"{one}_0_0" in batch.keys and f"{one}_2_0" in batch.keys


def test_a_dead_actor_is_named_without_waiting_for_the_living():
    actors = [_Actor.remote(), _Actor.remote()]
    probes = probe_actors(actors, [], "agent loop worker")
    ray.get(probes)
    probes = probe_actors(actors, probes, "agent loop worker")
    busy = actors[0].sleep.remote(60)
    ray.kill(actors[1])
    with pytest.raises(WorkerDead, match="agent loop worker died"):
        for _ in range(100):
            probes = probe_actors(actors, probes, "agent loop worker")
            time.sleep(0.1)
    ray.kill(actors[0])
    del busy


@ray.remote(num_cpus=0)
class _Actor:
    def sleep(self, seconds):
        time.sleep(seconds)


def test_a_lost_prompt_is_seen(buffer):
    (kept,) = submit(1, [0])
    finish(kept)
    with pytest.raises(
        RuntimeError, match="batch 1: TransferQueue holds 1 prompts, 2 were submitted"
    ):
        buffer.sample(1, "train", 2)


def test_a_batch_without_one_trajectory_shows_the_first_traceback(buffer):
    (uid,) = submit(1, [0])
    finish(uid, sessions=[], status="failure", errors={"0": "Traceback ... planted"})
    with pytest.raises(RuntimeError, match="all 3 trajectories failed.*\n.*planted"):
        buffer.sample(1, "train", 1)


def put_validation(rewards, errors=None):
    """One prompt of a validation, its samples with these rewards, and its failures."""
    tag = {"is_prompt": True, "status": "failure" if errors else "finished"}
    tq.kv_put(key="v0", partition_id="val", tag=tag | ({"errors": errors} if errors else {}))
    keys = [f"v0_{session}_0" for session in range(len(rewards))]
    versions = {"min_global_steps": 0, "max_global_steps": 0}
    tags = [versions | {"prompt_len": 2, "response_len": 2} for _ in keys]
    scores = [torch.tensor([0.0, reward]) for reward in rewards]
    extra_fields = [{"reward_extra_info": {"reason": f"sample {n}"}} for n in range(len(keys))]
    fields = tu.get_tensordict(
        {
            "rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged),
            "extra_fields": extra_fields,
        }
    )
    tq.kv_batch_put(keys=keys, partition_id="val", fields=fields, tags=tags)
    return KVBatchMeta(partition_id="val", keys=keys, tags=tags)


@pytest.fixture
def validation():
    yield put_validation
    tq.kv_clear(keys=list(tq.kv_list("val")["val"]), partition_id="val")


def test_what_failed_in_a_validation_is_counted_once(buffer, validation, capsys):
    validation([1.0], errors={"1": "Traceback ... planted"})
    batch, _metrics = buffer.sample(0, "val", 1)
    assert batch.keys == ["v0_0_0"]
    trainer = object.__new__(OneOffPipelineTrainer)
    trainer.replay_buffer = buffer
    samples = (["tiny"], ["v0"], {"reward": [1.0]}, [2])
    assert trainer._val_metrics_update(*samples)["pipeline/validation/missing"] == 1
    assert "1 trajectories failed; first: Traceback ... planted" in capsys.readouterr().out
    assert trainer._val_metrics_update(*samples)["pipeline/validation/missing"] == 0


LIMITS = LengthLimits(8, 8, 16, frozenset())


def test_a_reward_in_the_queue_that_is_none_has_the_verdict_infrastructure(validation):
    batch = validation([1.0, float("nan"), float("inf"), 1e30, 0.0])
    view = read_trajectories(batch, LIMITS).view
    failed = [False, True, True, True, False]
    assert np.isnan(view.rewards).tolist() == failed
    assert [verdict == "infrastructure" for verdict in view.verdicts] == failed


def test_a_validation_of_verls_sync_gets_what_has_a_reward(validation, capsys):
    replay = object.__new__(FilteringReplayBuffer)
    replay._limits = LIMITS
    batch = validation([1.0, float("nan"), 0.0])
    assert replay._drop_ungraded(batch).keys == ["v0_0_0", "v0_2_0"]
    assert "1 of 3 trajectories have no reward; first: v0_1_0: sample 1" in capsys.readouterr().out
    assert not [key for key in tq.kv_list("val")["val"] if key == "v0_1_0"]
    with pytest.raises(RuntimeError, match="2 of 2 trajectories have no reward; first: v0_0_0"):
        replay._drop_ungraded(validation([float("nan"), float("inf")]))


def test_an_overlong_wait_names_the_prompts(buffer):
    buffer.deadline_s = 0.2
    submit(3, [0])
    buffer.describe_pool = lambda: "replica 0 holds v_1"
    awaited = r"1 prompts of partition train: b3p0 \(running\).*; replica 0 holds v_1$"
    with pytest.raises(DeadlineExceeded, match=awaited):
        buffer.sample(3, "train", 1)


def test_a_wait_goes_on_while_something_of_the_pool_ends(buffer):
    """What is awaited may be queued behind it; the old rule gave up in the middle of the queue."""
    buffer.deadline_s = 0.2
    (uid,) = submit(3, [0])
    asked = []

    def find_idle_s():
        asked.append(1)
        if len(asked) == 4:
            finish(uid)
        return 0.1

    buffer.find_idle_s = find_idle_s
    batch, _metrics = buffer.sample(3, "train", 1)
    assert len(batch.keys) == N and len(asked) >= 4


def test_a_wait_ends_when_nothing_of_the_pool_ends_any_more(buffer):
    buffer.deadline_s = 0.2
    submit(3, [0])
    idle = iter([0.0, 0.1, 0.3])
    buffer.find_idle_s = lambda: next(idle)
    with pytest.raises(DeadlineExceeded, match="no request, reward or trajectory has ended"):
        buffer.sample(3, "train", 1)
    assert not list(idle)


def test_the_watchdog_ends_a_wait_for_the_dead(buffer):
    def dead():
        raise ConnectionError("replica 0 is dead")

    buffer.watchdog = dead
    submit(1, [0])
    with pytest.raises(ConnectionError, match="replica 0 is dead"):
        buffer.wait_until_sampled()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dead_controller_is_named_within_the_deadline():
    """The controller of a TransferQueue of its own is killed: no call waits for ever on it."""
    script = "from tests.integration.test_replay_buffer import kill_controller; kill_controller()"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=scale_deadline(200)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    answers = json.loads(run.stdout.splitlines()[-1])
    assert len(answers) == 6
    for call, answer in answers.items():
        assert answer.startswith("DeadlineExceeded: TransferQueue's controller: no answer"), call


def kill_controller():
    """Runs in a process of its own, since the queue cannot be used after it."""
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init()
    bound_waits(1.0)
    tq.kv_put(key="b9p0", partition_id="dead", tag={"status": "running"})
    assert list_tags("dead") == {"b9p0": {"status": "running"}}
    controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    ray.kill(controller)
    # It answers until Ray has ended its process.
    with pytest.raises(DeadlineExceeded):
        while True:
            list_tags("dead")
    calls = {
        "list_tags": lambda: list_tags("dead"),
        "read_tags": lambda: read_tags(["b9p0"], "dead"),
        "put_prompts": lambda: put_prompts(["b9p1"], 9, [1]),
        "remove_rows": lambda: remove_rows(["b9p0"], "dead"),
        "read_fields": lambda: read_fields(["b9p0"], "dead", ["rm_scores"]),
        "put_errors": lambda: asyncio.run(put_errors("b9p0", "dead", {"0": "planted"}, None)),
    }
    answers = {}
    for name, call in calls.items():
        try:
            answers[name] = repr(call())
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}"
    ray.shutdown()
    print(json.dumps(answers))


class SimulatedQueue:
    """Tells the tags of a batch; each question takes as long as it would at this size."""

    def __init__(self, poll_s, listing_s, ends_at):
        self.poll_s, self.listing_s, self.ends_at = poll_s, listing_s, ends_at
        self.now = self.polling = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def list_tags(self, partition):
        self.now += self.listing_s
        return self._tell()

    def read_tags(self, keys, partition):
        self.now += self.poll_s
        self.polling += self.poll_s
        return self._tell()

    def _tell(self):
        status = "finished" if self.now >= self.ends_at else "running"
        return {"b1p0": {"is_prompt": True, "status": status, "sessions": 0}}


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-4, 30.0), st.floats(1.0, 40.0), st.integers(20, 2000))
def test_polling_takes_a_tenth_at_most_and_ends_in_time(poll_s, listings, polls):
    """Whatever a poll costs; only the listings at the start and the end come on top."""
    queue = SimulatedQueue(poll_s, poll_s * listings, polls * max(poll_s, 0.02) * 10)
    waiting = InOrderReplayBuffer(1e9, lambda: None, 1e9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_order_replay_buffer, "time", queue)
        patch.setattr(in_order_replay_buffer, "list_tags", queue.list_tags)
        patch.setattr(in_order_replay_buffer, "read_tags", queue.read_tags)
        waiting.wait_until_sampled()
    listing = 2 * queue.listing_s
    assert queue.polling <= 0.1 * (queue.now - listing) + poll_s
    # Late by one pause, one poll and the last listing.
    assert queue.now - queue.ends_at <= max(10 * poll_s, 0.02) + 2 * poll_s + listing


def test_a_poll_asks_for_the_open_prompts_only(buffer, monkeypatch):
    first, second, third = submit(1, range(3))
    finish(first)
    asked = []

    def finish_one_by_one(keys, partition):
        asked.append(sorted(keys))
        finish(second if len(asked) == 1 else third)
        return read_tags(keys, partition)

    monkeypatch.setattr(in_order_replay_buffer, "read_tags", finish_one_by_one)
    buffer.wait_until_sampled()
    assert asked == [[second, third], [third]]


def test_a_removed_prompt_is_not_awaited(buffer, monkeypatch):
    one, two = submit(1, range(2))
    finish(two)

    def remove_one(keys, partition):
        tq.kv_clear(keys=[one], partition_id=partition)
        return read_tags(keys, partition)

    monkeypatch.setattr(in_order_replay_buffer, "read_tags", remove_one)
    buffer.wait_until_sampled()


def test_the_first_traceback_is_stored_beside_the_tag(buffer):
    one, two = submit(1, range(2))
    finish(two)
    asyncio.run(put_errors(one, "train", {"1": "ValueError: planted"}, "Traceback ...\nplanted"))
    asyncio.run(put_errors(one, "train", {"1": "ValueError: planted", "2": "OSError"}, None))
    finish(one, sessions=[0], status="failure")
    assert tq.kv_list("train")["train"][one]["errors"] == {
        "1": "ValueError: planted", "2": "OSError",
    }  # fmt: skip
    buffer.sample(1, "train", 2)
    assert buffer.reports[1].first_error == "Traceback ...\nplanted"
    assert buffer.reports[1].missing == 2
    assert one not in tq.kv_list("train")["train"]


def test_a_finished_batch_is_seen_soon(buffer, record_property):
    """Records the measured delay; asserts nothing about time."""
    delays = []
    for batch in range(1, 11):
        uids = submit(batch, range(4), sessions=4)
        ended = []

        def end(uids=uids, ended=ended):
            time.sleep(0.1)
            for uid in uids:
                finish(uid, sessions=range(4))
            ended.append(time.monotonic())

        thread = threading.Thread(target=end)
        thread.start()
        buffer.wait_until_sampled()
        seen = time.monotonic()
        thread.join()
        delays.append(seen - ended[0])
        tq.kv_clear(keys=list(tq.kv_list("train")["train"]), partition_id="train")
    record_property("median_delay_s", sorted(delays)[5])
    print(f"median delay {sorted(delays)[5] * 1000:.0f} ms, largest {max(delays) * 1000:.0f} ms")
