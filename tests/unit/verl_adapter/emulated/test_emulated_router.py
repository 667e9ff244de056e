"""verl's load balancer sees every emulated replica of a server, and calls reach the right one."""

import pickle
from collections import Counter
from types import SimpleNamespace

from verl_pipeline.verl_adapter.emulated.router import EmulatedRouter, ReplicaHandle

CALLS = []


class Method:
    def remote(self, **kwargs):
        CALLS.append(kwargs)
        return "answer"


def test_requests_spread_over_the_replicas_and_stay_there():
    router = EmulatedRouter({"host:1": "server"}, {"replicas": 4})
    names = [router.acquire_server(f"request {number}")[0] for number in range(12)]
    assert Counter(names) == {f"host:1/{number}": 3 for number in range(4)}
    name, handle = router.acquire_server("request 5")
    assert name == names[5] and handle.replica == int(name[-1])


def test_servers_come_and_go_with_all_their_replicas():
    router = EmulatedRouter({"a": "server"}, {"replicas": 2})
    router.add_servers({"b": "other"})
    assert router.get_all_servers() == ["a/0", "a/1", "b/0", "b/1"]
    router.remove_servers(["a"])
    assert {router.acquire_server(str(number))[0] for number in range(6)} == {"b/0", "b/1"}


def test_a_handle_names_its_replica_in_the_call_and_travels():
    handle = pickle.loads(pickle.dumps(ReplicaHandle("server", 3)))
    assert (handle.server, handle.replica) == ("server", 3)
    handle = ReplicaHandle(SimpleNamespace(generate=Method()), 3)
    assert handle.generate.remote(request_id="r") == "answer"
    assert CALLS == [{"replica": 3, "request_id": "r"}]
