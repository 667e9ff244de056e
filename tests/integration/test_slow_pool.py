"""A pool with few slots and many trajectories: what waits is not lost, and what hangs is named."""

import pytest
import ray
import transfer_queue as tq
import verl.trainer.ppo.v1  # noqa: F401  (registers our trainers; they import each other)
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tests.helpers.patience import scale_deadline
from tests.helpers.slow_pool import SlowServer, make_pool, submit_batch
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.verl_adapter.rollout.awaited_workers import AwaitedWorkers
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

PROMPTS, N = 8, 4
DEADLINES = "trainer.v1.one_off_pipeline.deadlines"


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init()
    yield
    tq.close()
    ray.shutdown()


class Trainer:
    """What asks for the pool's progress."""

    def __init__(self, pool):
        self.agent_loop_manager = pool


def make_config(directory, trajectory_s):
    overrides = [
        *tiny_run.make_overrides(directory, n=N),
        "actor_rollout_ref.rollout.agent.num_workers=2",
        f"{DEADLINES}.trajectory_s={trajectory_s}",
    ]
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", overrides=overrides)
    OmegaConf.resolve(config)
    return config


def sample(directory, batch, *, trajectory_s, seconds, slots=(1, 1), hanging=(), batch_s=None):
    """Sample a batch; returns its report, the errors by trajectory, and the longest wait."""
    servers = {
        f"10.0.0.{number}:80": SlowServer.remote(count, seconds, set(hanging))
        for number, count in enumerate(slots)
    }
    pool = make_pool(make_config(directory, trajectory_s), servers)
    batch_s = batch_s or trajectory_s
    awaited = AwaitedWorkers(Trainer(pool), Deadlines(batch_s=batch_s))
    buffer = InOrderReplayBuffer(batch_s, lambda: None, 1.0, awaited.find_idle_s)
    submit_batch(pool, batch, PROMPTS, N)
    try:
        buffer.wait_until_sampled()
        tags = tq.kv_list("train")["train"]
        errors = {
            f"{prompt}_{session}": error
            for prompt, tag in tags.items()
            for session, error in tag.get("errors", {}).items()
        }
        # Of each trajectory, three tokens of version 0.
        spans = [tag["version_spans"] for tag in tags.values() if "score" in tag]
        assert spans == [[[0, 3]]] * (PROMPTS * N - len(errors))
        buffer.sample(batch, "train", PROMPTS)
        waits = [server.find_longest_wait.remote() for server in servers.values()]
        return buffer.reports[batch], errors, max(ray.get(waits))
    finally:
        for actor in [*pool.agent_loop_workers, *servers.values()]:
            ray.kill(actor)
        tq.kv_clear(keys=list(tq.kv_list("train")["train"]), partition_id="train")


def test_a_slow_pool_loses_nothing_although_the_last_one_waits_longer_than_the_deadline(tmp_path):
    """Neither does the wait for the batch end, whose deadline is as short."""
    trajectory_s = min(scale_deadline(2), 10)
    report, errors, longest_wait = sample(
        tmp_path, 1, trajectory_s=trajectory_s, seconds=trajectory_s / 4
    )
    assert longest_wait > 1.5 * trajectory_s
    assert (report.missing, errors) == (0, {})


def test_one_that_hangs_is_given_up_by_name_and_alone(tmp_path):
    trajectory_s = min(scale_deadline(2), 10)
    report, errors, _wait = sample(
        tmp_path,
        2,
        trajectory_s=trajectory_s,
        seconds=trajectory_s / 8,
        slots=(2, 2),
        hanging={(3, 1)},
        batch_s=3 * trajectory_s,
    )
    assert report.missing == 1 and list(errors) == ["b2p3_1"]
    (error,) = errors.values()
    assert "trajectory b2p3_1: no progress for " in error
    assert "it waits for rollout server 10.0.0." in error and "where nothing ended" in error
    assert f"({DEADLINES}.trajectory_s={trajectory_s:g})" in error
    assert "in generate" in error  # the line at which it was interrupted


def test_a_server_that_ends_nothing_any_more_is_named_while_the_other_goes_on(tmp_path):
    trajectory_s = min(scale_deadline(2), 10)
    both = {(0, 0), (0, 1)}
    report, errors, _wait = sample(
        tmp_path,
        3,
        trajectory_s=trajectory_s,
        seconds=trajectory_s / 8,
        hanging=both,
        batch_s=3 * trajectory_s,
    )
    names = {error.partition("it waits for ")[2].partition(",")[0] for error in errors.values()}
    assert {"b3p0_0", "b3p0_1"} <= errors.keys() and report.missing == len(errors)
    assert all(name.startswith("rollout server 10.0.0.") for name in names)


def test_a_pool_in_which_nothing_ends_any_more_ends_the_wait(tmp_path):
    """The deadline of the batch is the last one: here nobody gives up trajectories."""
    everybody = {(row, session) for row in range(PROMPTS) for session in range(N)}
    with pytest.raises(DeadlineExceeded, match=r"b4p0 \(running\).*no request, reward or traj"):
        sample(
            tmp_path,
            4,
            trajectory_s=3600,
            seconds=0.1,
            hanging=everybody,
            batch_s=min(scale_deadline(2), 10),
        )
