"""Gauges come from the engines' own pages, without a proxy, and a silent replica has none."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.patience import scale_deadline
from verl_pipeline.telemetry.recorder import Recorder, RunTarget
from verl_pipeline.telemetry.records import Gauge
from verl_pipeline.verl_adapter.telemetry import replica_gauges
from verl_pipeline.verl_adapter.telemetry.replica_gauges import (
    BusyTime,
    ReplicaGauges,
    parse_gauges,
)


def make_page(engines, *, kv_name="vllm:kv_cache_usage_perc", running="vllm:num_requests_running"):
    """A page as an engine's library writes it, with a sample of each engine."""
    registry = prometheus_client.CollectorRegistry()
    labels = ["engine", "model_name"]
    state = {
        name: prometheus_client.Gauge(name, "help", labels, registry=registry)
        for name in (running, kv_name)
    }
    tokens = prometheus_client.Counter("vllm:generation_tokens", "help", labels, registry=registry)
    times = prometheus_client.Histogram("vllm:e2e_s", "help", labels, registry=registry)
    for engine, (requests, kv_share, count) in enumerate(engines):
        of = (str(engine), 'a "model" {of} ours')
        state[running].labels(*of).set(requests)
        state[kv_name].labels(*of).set(kv_share)
        tokens.labels(*of).inc(count)
        times.labels(*of).observe(3.0)
    return prometheus_client.generate_latest(registry).decode()


numbers = st.integers(0, 10**9)


@given(st.lists(st.tuples(numbers, st.floats(0, 1), numbers), min_size=1, max_size=4))
def test_engines_of_a_replica_are_summed_and_shares_averaged(engines):
    gauges = parse_gauges(make_page(engines))
    assert gauges == {
        "running": sum(entry[0] for entry in engines),
        "kv_share": pytest.approx(sum(entry[1] for entry in engines) / len(engines)),
        "generated_tokens": sum(entry[2] for entry in engines),
    }


def test_sglang_has_other_names_and_an_unknown_page_tells_nothing():
    page = make_page([(3, 0.5, 7)], kv_name="sglang:token_usage", running="sglang:num_running_reqs")
    assert parse_gauges(page) == {"running": 3, "kv_share": 0.5, "generated_tokens": 7}
    assert parse_gauges("") == parse_gauges("<html>not found</html>\n# HELP x y") == {}


def test_busy_time_counts_what_ran_at_a_reading_or_between_two():
    def read(*readings):
        busy = BusyTime()
        gauges = [
            Gauge("replica 0", t, running=running, generated_tokens=tokens)
            for t, running, tokens in readings
        ]
        for before, after in zip(gauges, gauges[1:], strict=False):
            busy.add(before, after)
        return busy.share

    assert read((0.0, 1, 0), (1.0, 2, 9)) == 1.0
    assert read((0.0, 1, 0), (1.0, 0, 9), (2.0, 0, 9)) == 0.25
    assert read((0.0, 0, 0), (1.0, 0, 9)) == 0.5
    assert read((0.0, 0, 5), (1.0, 0, 5)) == 0.0
    assert read((0.0, None, 5), (1.0, None, 7)) is None
    assert read() is None


@pytest.mark.medium
def test_gauges_are_read_past_a_proxy_until_a_replica_is_silent(tmp_path, monkeypatch, made_header):
    monkeypatch.setattr(replica_gauges, "POLL_EVERY_S", 0.02)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    page = make_page([(2, 0.25, 40)]).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    recorder = Recorder(RunTarget(str(tmp_path), made_header), "driver")
    address = f"127.0.0.1:{server.server_port}"
    gauges = ReplicaGauges(recorder, {"replica 0": address, "replica 1": "127.0.0.1:9"})
    gauges.start()
    deadline = time.monotonic() + scale_deadline(30)
    while (busy := gauges.take_busy_time().share) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert busy == 1.0
    server.shutdown()
    server.server_close()
    gauges.stop()
    recorder.close()
    (path,) = (tmp_path / "telemetry").glob("gauges-driver-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["lane"] for line in lines} == {"replica 0"}
    assert lines[0].items() >= {"running": 2, "kv_share": 0.25, "generated_tokens": 40}.items()
