"""The start of a run: the task runner is kept; the configuration is on disk, not on the console."""

import gc
import os
import weakref

import pytest
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.entry import run_entry
from verl_pipeline.verl_adapter.entry.run_entry import (
    TaskRunner,
    WatchedStart,
    run_training,
    write_configuration,
)
from verl_pipeline.verl_adapter.placement import ray_cluster
from verl_pipeline.verl_adapter.placement.ray_cluster import NotStarted


class Runner:
    """Stands for the handle of an actor."""


class ActorClass:
    """Stands for Ray's class of an actor."""

    def __init__(self, cls):
        assert cls is TaskRunner

    def options(self, **options):
        self.given = options
        return self

    def remote(self):
        return Runner()


@pytest.fixture
def calls(monkeypatch):
    """What happened right after ``ray.init``, in order."""
    made = []
    monkeypatch.setattr(run_entry.ray, "remote", ActorClass)
    monkeypatch.setattr(
        run_entry, "await_slots", lambda _config, seconds: made.append(f"awaited {seconds:g}")
    )
    monkeypatch.setattr(WatchedStart, "kept_runners", [])
    return made


def test_the_task_runner_is_kept_and_signals_are_ours(composed, calls):
    start = WatchedStart(composed(), lambda: calls.append("started"))
    handles = [start.remote(), start.options(runtime_env={"nsight": {}}).remote()]
    runners = [weakref.ref(runner) for runner in WatchedStart.kept_runners]
    del handles
    gc.collect()
    assert all(runner() is not None for runner in runners) and len(runners) == 2
    assert calls == ["started", "awaited 600"] * 2


def test_no_start_replaces_the_configuration_of_an_earlier_one(composed, tmp_path):
    (tmp_path / "configuration-2.yaml").write_text("mine")
    staleness = "trainer.v1.one_off_pipeline.staleness"
    configs = [
        composed(f"trainer.default_local_dir={tmp_path}", f"{staleness}={value}")
        for value in (0, 1)
    ]
    paths = [write_configuration(config) for config in configs]
    assert [path.name for path in paths] == ["configuration-1.yaml", "configuration-3.yaml"]
    for config, path in zip(configs, paths, strict=True):
        assert OmegaConf.load(path) == OmegaConf.to_container(config, resolve=True)
    assert (tmp_path / "configuration-2.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_named(composed, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    with pytest.raises(ConfigError, match=f"default_local_dir={folder}: cannot be written to"):
        write_configuration(composed(f"trainer.default_local_dir={folder}"))


@pytest.mark.parametrize(
    "cause",
    [
        ConfigError("data.train_batch_size=4: the training set has 3 prompts"),
        NotStarted("the run's pools have no place in Ray's cluster"),
        OutputError("checkpoints: the disk is full"),
    ],
)
def test_what_the_task_runner_refuses_is_one_line(composed, monkeypatch, cause):
    remote = RayTaskError("run", "Traceback (most recent call last): ...", cause)

    def run_ppo(_config, task_runner_class):
        raise remote.as_instanceof_cause()

    monkeypatch.setattr(run_entry, "run_ppo", run_ppo)
    with pytest.raises(type(cause)) as refused:
        run_training(composed(), lambda: None)
    assert str(refused.value) == str(cause) and not isinstance(refused.value, RayTaskError)


@pytest.mark.parametrize("overrides", [[], ["+ray_kwargs.ray_init.address=10.0.0.1:6379"]])
def test_sizes_of_a_ray_that_runs_already_are_refused(composed, monkeypatch, overrides):
    if not overrides:
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="num_cpus=64 .*num_gpus=64: the Ray at 10.0.0.1:6379"):
        run_training(composed(*overrides), lambda: None)
    nothing = [f"ray_kwargs.ray_init.{name}=null" for name in ("num_cpus", "num_gpus")]
    monkeypatch.setattr(run_entry, "run_ppo", lambda _config, task_runner_class: None)
    run_training(composed(*overrides, *nothing), lambda: None)


def test_a_ray_that_ray_start_has_left_counts_too(composed, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "find_bootstrap_address", lambda _folder: "10.0.0.2:6379")
    with pytest.raises(ConfigError, match="the Ray at 10.0.0.2:6379 runs already"):
        ray_cluster.check_connection(composed())


@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync"])
def test_verls_run_prints_where_its_configuration_is(composed, monkeypatch, capsys, tmp_path, mode):
    """verl's own ``run``, up to where it needs Ray; what it says afterwards is shown."""

    class Refused(Exception):
        pass

    def refuse(_config):
        print("the first word after the configuration")
        raise Refused

    monkeypatch.setattr("transfer_queue.init", refuse)
    runner = TaskRunner()
    config = composed(f"trainer.v1.trainer_mode={mode}", f"trainer.default_local_dir={tmp_path}")
    with pytest.raises(Refused):
        runner.run(config)
    assert runner.config is config
    written = tmp_path / "configuration-1.yaml"
    assert capsys.readouterr().out.splitlines() == [
        f"[start] configuration: {written}",
        "the first word after the configuration",
    ]
    assert OmegaConf.load(written).trainer.v1.trainer_mode == mode


@pytest.mark.parametrize("is_cpu", [True, False])
def test_the_driver_gets_the_nodes_processors_unless_they_do_all_the_work(monkeypatch, is_cpu):
    given = []
    monkeypatch.setattr(run_entry, "is_cpu_run", lambda: is_cpu)
    monkeypatch.setattr(run_entry.torch, "set_num_threads", given.append)
    run_entry.give_driver_threads()
    assert given == ([] if is_cpu else [min(len(os.sched_getaffinity(0)), 16)])
