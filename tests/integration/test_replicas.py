"""Weight syncs and health checks of replicas of each engine, with real Ray actors."""

import asyncio
import http.server
import socket
import threading
import time

import numpy as np
import pytest
import ray
from omegaconf import OmegaConf
from verl.checkpoint_engine import base as checkpoint_base
from verl.workers.config import CheckpointEngineConfig
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient

from tests.helpers.installed_servers import (
    REPLICAS,
    SERVERS,
    find_returned_texts,
    make_replica,
    make_server_class,
)
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.stand_in_engine import STOP_REASONS, Balancer, StandInEngine
from tests.helpers.thinned import thin_out
from verl_pipeline.filters import BatchView
from verl_pipeline.trainer.batch import StalenessViolation, TrajectoryBatch, check_versions
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.trainer.schedule import DRAINED, Dial
from verl_pipeline.trainer.server_health import Sign
from verl_pipeline.verl_adapter.rollout import replica_probe
from verl_pipeline.verl_adapter.rollout.replica_probe import probe_replica
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool, RolloutServerDead

pytestmark = pytest.mark.timeout(300)


class Group:
    """A worker group of nobody."""

    world_size = 0

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        return lambda *args, **kwargs: []


class Manager:
    """What the pool asks of verl's manager of servers."""

    def __init__(self, replicas, addresses=()):
        # Nobody listens there.
        self.addresses = list(addresses) or ["127.0.0.1:1"] * len(replicas)
        self.replicas = replicas

    def get_replicas(self):
        return self.replicas

    def get_addresses(self):
        return self.addresses


class ActorGroup(Group):
    """Trainer workers that send their version to all servers of the replicas."""

    def __init__(self, servers):
        self.servers = servers

    def __getattr__(self, name):
        if name != "update_weights":
            return super().__getattr__(name)
        return lambda global_steps, mode: [
            server.set_global_steps.remote(global_steps) for server in self.servers
        ]


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def processes(cluster):
    """Two servers of each engine, which take seconds to start."""
    return {
        engine: [make_server_class(engine, StandInEngine).remote(engine) for _node in range(2)]
        for engine in SERVERS
    }


@pytest.fixture
def servers(processes):
    """The same, as if they had just started."""
    for engine in processes.values():
        ray.get([server.reset.remote() for server in engine])
    return processes


@pytest.fixture
def make_pool(servers, monkeypatch):
    """Builds a pool of one replica of a kind; returns the pool and the servers."""
    monkeypatch.setattr(checkpoint_base, "RayWorkerGroup", Group)
    monkeypatch.setattr(
        checkpoint_base.CheckpointEngineManager, "build_process_group", lambda *_: None
    )

    def make(kind, addresses=(), others=(), **deadlines):
        engine, _classes = REPLICAS[kind]
        chosen = [*servers[engine], *others]
        rollout = {
            "dtype": "bfloat16",
            "load_format": "auto",
            "name": engine,
            "prometheus": {"enable": False},
            "checkpoint_engine": {
                "_target_": f"{CheckpointEngineConfig.__module__}.CheckpointEngineConfig",
                "backend": "gloo",
                "custom_backend_module": "verl_pipeline.verl_adapter.weights.checkpoint_engine",
            },
        }
        unchecked = {"fingerprint_syncs": 0, "fingerprint_every": 0}
        config = OmegaConf.create(
            {
                "actor_rollout_ref": {"rollout": rollout},
                "trainer": {"v1": {"one_off_pipeline": {"weight_check": unchecked}}},
            }
        )
        manager = Manager([make_replica(kind, chosen)], addresses)
        return RolloutPool(config, manager, ActorGroup(chosen), Deadlines(**deadlines)), chosen

    return make


def list_running(servers):
    return [name for server in servers for name in ray.get(server.list_running.remote())]


@pytest.mark.parametrize("kind", thin_out(REPLICAS, keep=2))
def test_a_sync_calls_the_servers_as_their_replica_does(make_pool, kind):
    pool, servers = make_pool(kind)
    request = servers[0].generate.remote([1], {}, "left over")
    wait_until(lambda: list_running(servers), 30, "the request")
    report = pool.send_weights(3)
    assert pool.version == 3
    # Only vLLM's servers tell how many.
    counted = {"pipeline/weight_sync/aborted_requests": 1.0} if kind.startswith("vllm") else {}
    times = ("pipeline/weight_sync/seconds", "pipeline/weights/compare_s")
    assert {name: value for name, value in report.items() if name not in times} == {
        "pipeline/weight_sync/count": 1.0,
        **counted,
    }
    assert ray.get(request).stop_reason == STOP_REASONS[REPLICAS[kind][0]]
    calls = ray.get(servers[0].list_calls.remote())
    steps = ["abort_all_requests", "release_kv_cache", "set_global_steps", "resume_kv_cache"]
    assert [name for name in calls if name in steps] == steps
    assert list_running(servers) == []


@pytest.mark.parametrize("engine", SERVERS)
def test_only_vllm_tells_what_it_aborted(engine):
    told = "aborted_count" in find_returned_texts(engine, "abort_all_requests")
    assert told == (engine == "vllm")


def test_a_request_that_was_given_up_may_be_aborted_by_a_later_sync(make_pool):
    """It reached the server when the first sync had closed it: nobody waits for it."""
    pool, servers = make_pool("vllm")
    ray.get(servers[0].abort_all_requests.remote())
    for leg in "PD":  # disaggregated prefill makes two of it
        servers[0].generate.remote([1], {}, f"given up_{leg}")
    assert pool.send_weights(1)["pipeline/weight_sync/aborted_requests"] == 0
    wait_until(lambda: len(list_running(servers)) == 2, 30, "both to be admitted")
    assert pool.send_weights(2)["pipeline/weight_sync/aborted_requests"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_an_interrupted_trajectory_is_refused_whatever_its_engine_tells(
    make_pool, kind, is_interrupted
):
    pool, servers = make_pool(kind)
    pool.send_weights(1)
    balancer = ray.remote(num_cpus=0)(Balancer).remote(servers[0])
    client = FullyAsyncLLMServerClient(
        OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": kind}}}), balancer
    )
    outcome = {}

    def generate():
        outcome["output"] = asyncio.run(
            client.generate("r", prompt_ids=[1], sampling_params={"max_tokens": 2})
        )

    thread = threading.Thread(target=generate, daemon=True)
    thread.start()
    wait_until(lambda: list_running(servers), 30, "the request")
    if is_interrupted:
        pool.send_weights(2)
        wait_until(lambda: list_running(servers), 30, "the rest of it")
    ray.get(servers[0].finish.remote())
    thread.join(scale_deadline(30))
    fields = outcome["output"].extra_fields
    span = np.array([[fields["min_global_steps"], fields["max_global_steps"]]])
    one = np.array([1])
    view = BatchView(["b2p0"], one - 1, one * 1.0, [None], one, one, one > 1)
    batch = TrajectoryBatch(["b2p0_0_0"], span, view, [{}], 0.0)
    if is_interrupted:
        with pytest.raises(StalenessViolation, match=r"b2p0_0_0 was sampled with v_1\.\.v_2"):
            check_versions(batch, 2, expected=1, dial=Dial(DRAINED, 1))
    else:
        check_versions(batch, 2, expected=1, dial=Dial(DRAINED, 1))
    ray.kill(balancer)


# ---- health ----------------------------------------------------------------------------------


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers as an engine's server: ``statuses`` by page, 200 for others; None: never."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status = self.server.statuses.get(self.path, 200)
        if status is None:
            self.server.released.wait()
            return
        self.send_response(status)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Starts HTTP servers; returns (server, address as verl writes it)."""
    started = []

    def start(host="127.0.0.1", **statuses):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_class = type(
            "Server",
            (http.server.ThreadingHTTPServer,),
            {"address_family": family, "daemon_threads": True},
        )
        server = server_class((host, 0), Pages)
        server.statuses = {f"/{page}": status for page, status in statuses.items()}
        server.asked, server.released = [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        name = f"[{host}]" if ":" in host else host
        return server, f"{name}:{server.server_port}"

    yield start
    for server in started:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def actor(servers):
    return servers["sglang"][0]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "mine"])
def test_no_check_generates_or_asks_a_proxy(serve, monkeypatch, engine):
    proxy, proxy_address = serve()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{proxy_address}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server, address = serve()
    assert probe_replica(engine, address, [], 30)[0] is Sign.ALIVE
    assert proxy.asked == []
    assert server.asked == ["/health" if engine in ("vllm", "trtllm") else "/v1/models"]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_asked(serve):
    try:
        _server, address = serve("::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert probe_replica("vllm", address, [], 30)[0] is Sign.ALIVE


@pytest.mark.parametrize(
    ("engine", "status", "sign"),
    [
        ("vllm", 503, Sign.DEAD),
        ("vllm", 500, Sign.SILENT),
        ("trtllm", 503, Sign.SILENT),
        ("trtllm", 404, Sign.ALIVE),
        ("sglang", 503, Sign.ALIVE),
    ],
)
def test_what_an_engine_says_of_itself(serve, actor, engine, status, sign):
    """vLLM answers 503 only with a dead engine; others may get well again. SGLang's page of health
    is not asked.
    """
    _server, address = serve(health=status)
    assert probe_replica(engine, address, [actor], 30)[0] is sign


def test_a_server_that_stalls_is_silent_though_its_process_lives(serve, actor, monkeypatch):
    monkeypatch.setattr(replica_probe, "ACTORS_S", scale_deadline(5))
    _server, address = serve(health=None)
    sign, seen = probe_replica("vllm", address, [actor], 0.2)
    assert sign is Sign.SILENT
    assert "1 of 1 processes are known to live" in seen


def test_a_dead_actor_of_any_node_ends_the_run_at_once(make_pool, serve):
    _server, address = serve(health=None)
    mortal = make_server_class("vllm", StandInEngine).remote("vllm")
    ray.get(mortal.list_calls.remote())
    pool, _servers = make_pool("vllm", [address], [mortal], health_check_s=0.2)
    pool.check_health()  # a stall
    ray.kill(mortal)
    with pytest.raises(RolloutServerDead, match=r"rollout replica 0 at .* is dead: .*process died"):
        pool.check_health()


def test_a_dead_engine_ends_the_run_at_once(make_pool, serve):
    _server, address = serve(health=503)
    pool, _servers = make_pool("vllm", [address])
    with pytest.raises(RolloutServerDead, match="is dead: it answers 503: its engine died"):
        pool.check_health()


def test_silence_ends_the_run_after_a_while(make_pool, serve):
    _server, address = serve(health=503)
    pool, _servers = make_pool("trtllm", [address], silent_server_s=0.2)
    pool.check_health()
    pool.check_health()
    time.sleep(0.2)
    with pytest.raises(RolloutServerDead, match="has not answered 3 checks in a row, over"):
        pool.check_health()
