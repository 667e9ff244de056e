"""Starts on real Ray clusters of made-up nodes: refused, awaited, named."""

import re

import pytest
import ray
from hydra import compose, initialize_config_module

from tests.helpers.fake_cluster import connect
from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.placement import ray_cluster
from verl_pipeline.verl_adapter.placement.ray_cluster import (
    NotStarted,
    PlacementWatch,
    await_slots,
    check_cluster,
    list_pending,
)

pytestmark = pytest.mark.timeout(300)


def make_config(*overrides):
    with initialize_config_module("verl_pipeline.config", version_base=None):
        return compose(
            "one_off_pipeline",
            ["+verl_pipeline=cpu", f"{ROLLOUT}.nnodes=1", *overrides],
        )


@pytest.fixture(autouse=True)
def on_cpus(monkeypatch):
    monkeypatch.setattr(ray_cluster, "get_resource_name", lambda: "GPU")


@ray.remote(num_cpus=1)
class Holder:
    """Holds a slot."""

    def ping(self):
        """Answers once it has the slot."""


@ray.remote
def wait_for(handle):
    return ray.get(handle.ping.remote())


@pytest.mark.parametrize(
    ("node", "needed"),
    [
        pytest.param((1, 2), "CPU slots: 7 needed, 1 there .*num_cpus=7", marks=pytest.mark.slow),
        pytest.param((2, 64), "CPU slots: 7 needed, 2 there .*num_cpus=7", marks=pytest.mark.slow),
        ((6, 1), "CPU slots: 7 .*; GPU slots: 2 needed, 1 there .*num_cpus=7 .*num_gpus=2"),
    ],
)
@pytest.mark.slow
def test_a_small_node_is_refused(node, needed):
    with connect(node), pytest.raises(ConfigError) as refused:
        await_slots(make_config(), 1.0)
    message = str(refused.value)
    assert re.search(needed, message) and "\n" not in message
    assert "num_data_storage_units=1): 1 x 1 CPU" in message
    assert "pool of trainer.nnodes=1 x n_gpus_per_node=1: 1 x 3 CPU + 1 GPU" in message


@pytest.mark.slow
def test_pools_on_two_nodes():
    with connect((8, 2), (8, 2)):
        check_cluster(make_config("trainer.n_gpus_per_node=2", f"{ROLLOUT}.n_gpus_per_node=2"))
        with pytest.raises(ConfigError, match=r"no node has 9 CPU \+ 3 GPU for one part of the p"):
            check_cluster(make_config("trainer.n_gpus_per_node=3"))
        with pytest.raises(ConfigError, match=r"GPU slots: 5 needed, 4 there"):
            check_cluster(make_config("trainer.n_gpus_per_node=3", f"{ROLLOUT}.n_gpus_per_node=2"))


@pytest.mark.slow
def test_a_busy_cluster_is_awaited_and_then_refused(monkeypatch):
    monkeypatch.setattr(ray_cluster, "REPORT_EVERY_S", 1.0)
    said = []
    with connect((7, 2)):
        holder = Holder.remote()
        ray.get(holder.ping.remote())
        wait_until(lambda: ray.available_resources()["CPU"] == 6, 30, "the slot to be held")
        with pytest.raises(NotStarted, match="large enough .* busy: CPU slots: 7 needed, 6 there"):
            await_slots(make_config(), 3.0, said.append)
        assert said and all("busy: CPU slots" in line and "of 3 s" in line for line in said)
        said.clear()

        def end_holder(line):
            said.append(line)
            ray.kill(holder)

        await_slots(make_config(), scale_deadline(60), end_holder)
        assert len(said) == 1


@pytest.mark.slow
def test_what_ray_does_not_start_is_named(monkeypatch):
    monkeypatch.setattr(ray_cluster, "REPORT_EVERY_S", 0.5)
    monkeypatch.setattr(ray_cluster, "_WATCH_S", 0.2)
    said = []
    with connect((2, 1)):
        PlacementWatch(60, said.append).wait(wait_for.remote(Holder.remote()))  # nothing to say
        first, second = Holder.options(name="first").remote(), Holder.remote()
        ray.get([first.ping.remote(), second.ping.remote()])
        said.clear()
        third = Holder.options(name="storage").remote()
        with pytest.raises(NotStarted, match="actor storage: not started by Ray for .*: 0 CPU"):
            PlacementWatch(2.0, said.append).wait(third.ping.remote())
        assert said and "[start] actor storage: not started by Ray for" in said[0]
        group = ray.util.placement_group([{"CPU": 3, "GPU": 1}], name="trainer")
        wait_until(lambda: len(list_pending()) == 2, 30, "both to be pending")
        assert sorted(list_pending().values()) == [
            "actor storage",
            "placement group trainer (1 x 3 CPU + 1 GPU)",
        ]
        ray.util.remove_placement_group(group)
        ray.kill(third)
        wait_until(lambda: not list_pending(), 30, "none to be pending")


@pytest.mark.slow
def test_an_autoscaler_is_refused_only_what_it_could_not_bring(monkeypatch):
    with connect((1, 0)):
        ceiling = {"CPU": 8, "GPU": 2}
        monkeypatch.setattr(
            ray_cluster.state.state, "get_max_resources_from_cluster_config", lambda: ceiling
        )
        await_slots(make_config(), 1.0)
        ceiling["GPU"] = 1
        with pytest.raises(ConfigError, match=r"GPU slots: 2 needed, 1 there \(at its largest: "):
            await_slots(make_config(), 1.0)
