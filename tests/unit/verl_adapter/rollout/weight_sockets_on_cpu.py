"""Two runs on one machine, whose Ray clusters number their jobs alike, share no socket; run by
test_weight_sockets.py.
"""

import os
from types import SimpleNamespace

import pytest
import ray
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

from verl_pipeline.verl_adapter.rollout.versioned_server import VersionedServer
from verl_pipeline.verl_adapter.rollout.weight_sockets import (
    JOB_VARIABLE,
    add_run,
    name_sender_sockets,
    name_server_sockets,
)

pytestmark = pytest.mark.timeout(300)


@ray.remote(num_cpus=0)
class Sender:
    """A checkpoint engine's worker with verl's own adapter of vLLM."""

    def __init__(self):
        from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

        os.environ.update({"RANK": "1", "RAY_LOCAL_WORLD_SIZE": "2"})
        sizes = {"tensor_model_parallel_size": 2, "data_parallel_size": 1}
        config = SimpleNamespace(
            **sizes, pipeline_model_parallel_size=1, layered_summon=False, disaggregation=None
        )
        self.server_adapter = ServerAdapter(config, SimpleNamespace(), None, replica_rank=3)


def read_sender_socket(worker):
    return worker.server_adapter.zmq_handle


def make_receiver_socket(job, monkeypatch):
    """The name that vLLM's worker of rank 1 of replica 3 forms."""
    monkeypatch.setenv("VERL_REPLICA_RANK", "3")
    monkeypatch.setenv(JOB_VARIABLE, job)
    worker = SimpleNamespace(local_rank=1, model_runner=SimpleNamespace())
    return vLLMColocateWorkerExtension._get_zmq_handle(worker)


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_both_sides_agree_on_a_socket_that_no_other_run_has(cluster, monkeypatch):
    job = ray.get_runtime_context().get_job_id()
    senders = [Sender.remote() for _ in range(3)]
    assert {
        ray.get(sender.__ray_call__.remote(read_sender_socket), timeout=120) for sender in senders
    } == {make_receiver_socket(job, monkeypatch)}, "verl names them differently now"
    for run, sender in zip(("one", "other"), senders, strict=False):
        replica = SimpleNamespace(config=SimpleNamespace(name="vllm"), workers=[sender])
        ray.get(name_sender_sockets(replica, run), timeout=60)
    sockets = [ray.get(sender.__ray_call__.remote(read_sender_socket)) for sender in senders]
    assert len(set(sockets)) == 3
    for run, found in zip(("one", "other"), sockets, strict=False):
        assert found == make_receiver_socket(add_run(job, run), monkeypatch)


@pytest.mark.parametrize("server", [vLLMHttpServer, VersionedServer])
def test_vllms_server_tells_its_workers_the_name(server, monkeypatch):
    monkeypatch.setenv(JOB_VARIABLE, "")

    def start(_server, job):
        os.environ[JOB_VARIABLE] = job

    monkeypatch.setattr(server, "__init__", start)
    found = ray.remote(server)
    replica = SimpleNamespace(config=SimpleNamespace(name="vllm"), server_class=found)
    name_server_sockets(replica, "one")
    server_class = replica.server_class.__ray_metadata__.modified_class
    assert issubclass(server_class, server) and server_class.__name__ == server.__name__
    server_class("01000000")
    assert os.environ[JOB_VARIABLE] == add_run("01000000", "one")


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "vllm_omni"])
def test_other_engines_keep_verls_names(engine):
    servers = object()
    replica = SimpleNamespace(
        config=SimpleNamespace(name=engine), server_class=servers, workers=[object()]
    )
    name_server_sockets(replica, "one")
    assert replica.server_class is servers and name_sender_sockets(replica, "one") == []
