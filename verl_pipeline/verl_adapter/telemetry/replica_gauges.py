"""What the rollout replicas' engines count, read from their Prometheus pages.

Invariants:
* No proxy stands between the driver and a replica, whatever the environment says.
* A replica that does not answer has no gauge for that moment; the run does not notice.
* A number that an engine does not tell is None.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import requests

from verl_pipeline.telemetry.recorder import Recorder
from verl_pipeline.telemetry.records import Gauge

PAGE = "/metrics"
POLL_EVERY_S = 1.0
ANSWER_S = 2.0

# By field, the name of vLLM's and of SGLang's sample.
SAMPLES = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs"),
    "kv_share": ("vllm:kv_cache_usage_perc", "sglang:token_usage"),
    "generated_tokens": ("vllm:generation_tokens_total", "sglang:generation_tokens_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "preemptions": ("vllm:num_preemptions_total", "sglang:num_retracted_requests_total"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "sglang:cached_tokens_total"),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "sglang:prompt_tokens_total"),
}
_KNOWN = {name for names in SAMPLES.values() for name in names}
_MEANS = ("kv_share",)


def parse_gauges(page: str) -> dict[str, float]:
    """Fields of :class:`~.records.Gauge` that a Prometheus page tells.

    Engines of a replica with data parallelism have a sample each: they are summed, shares averaged.
    """
    found: dict[str, list[float]] = {}
    for line in page.splitlines():
        # name{labels} value; comments begin with "#"
        sample, _, value = line.rpartition(" ")
        name = sample.partition("{")[0]
        if name in _KNOWN:
            found.setdefault(name, []).append(float(value))
    gauges = {}
    for field, names in SAMPLES.items():
        values = next((found[name] for name in names if name in found), None)
        if values:
            gauges[field] = sum(values) / (len(values) if field in _MEANS else 1)
    return gauges


@dataclass
class BusyTime:
    """Seconds, summed over replicas, that were looked at, and in which a replica ran a request."""

    watched_s: float = 0.0
    busy_s: float = 0.0

    def add(self, before: Gauge, after: Gauge) -> None:
        """Count the time between two readings of a replica.

        Each half has the state of the reading that it touches. If tokens came although no request
        ran at either, it was busy for some part, which counts as half.
        """
        if before.running is None or after.running is None:
            return
        seconds = after.t - before.t
        share = ((before.running > 0) + (after.running > 0)) / 2
        if not share and (after.generated_tokens or 0) > (before.generated_tokens or 0):
            share = 0.5
        self.watched_s += seconds
        self.busy_s += seconds * share

    @property
    def share(self) -> float | None:
        """Busy share; None if nothing was looked at."""
        return self.busy_s / self.watched_s if self.watched_s else None


class ReplicaGauges:
    """Reads the pages of replicas about once a second, in a thread.

    Args:
        recorder: of the driver.
        addresses: ``host:port`` of each replica's HTTP server, by lane.
    """

    def __init__(self, recorder: Recorder, addresses: dict[str, str]):
        self._recorder, self._addresses = recorder, addresses
        self._lock = threading.Lock()
        self._busy = BusyTime()
        # By lane, the reading before.
        self._last: dict[str, Gauge] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="replica gauges", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._end.set()
        self._thread.join(timeout=2 * ANSWER_S)

    def take_busy_time(self) -> BusyTime:
        """The busy time since this was last called."""
        with self._lock:
            taken, self._busy = self._busy, BusyTime()
        return taken

    def _read_on(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._end.wait(POLL_EVERY_S):
                self._read_all(session, self._addresses.items())

    def _read_all(self, session: requests.Session, replicas: Iterable[tuple[str, str]]) -> None:
        for lane, address in replicas:
            try:
                answer = session.get(f"http://{address}{PAGE}", timeout=ANSWER_S)
                answer.raise_for_status()
                gauges = parse_gauges(answer.text)
            except (requests.RequestException, ValueError):
                self._last.pop(lane, None)  # nobody knows what it does meanwhile
                continue
            if gauges:
                gauge = Gauge(lane, self._recorder.now(), **gauges)
                self._recorder.add(gauge)
                before = self._last.get(lane, gauge)
                with self._lock:
                    self._busy.add(before, gauge)
                self._last[lane] = gauge
