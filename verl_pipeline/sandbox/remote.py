"""The tier ``remote``: programs run on a server that speaks SandboxFusion's HTTP API.

API: https://bytedance.github.io/SandboxFusion/docs/api/run-code-run-code-post (``POST /run_code``).

It has the same semantics as the local tiers, as far as that API reaches: the judge compares, a test
that does not pass fails the program, and a failure of the server is a :class:`SandboxError`. The
server limits wall-clock time only, and isolates as it is set up to. Assert-style tests need a
channel between two programs, which it has not: they are refused.

Invariant: no request without a deadline.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from verl_pipeline.sandbox.launch import INSIDE
from verl_pipeline.sandbox.outcome import Limits, Outcome, SandboxError

TIER = "remote"
# Tries of a request that the server answers with one of these (busy, restarting, behind a gateway
# that gave up).
TRIES, PAUSE_S, RETRY_STATUS = 3, 1.0, (429, 502, 503, 504)
# Beyond the run's own limit: for the server's queue and the network.
QUEUE_S = 60.0
_RESULT = "verl_pipeline_result.json"
_MODULES = ("candidate.py", "exits.py", "messages.py", "values.py")
_RUN = """\
import json, sys
sys.path.insert(0, ".")
import candidate
with open("verl_pipeline_question.json") as file:
    question = json.load(file)
if question["entry_point"] is None:
    sys.exit(candidate.run(question["prelude"], question["source"]))
with open("verl_pipeline_result.json", "wb") as result:
    wanted = [question[key] for key in ("prelude", "source", "entry_point", "arguments")]
    code = candidate.call(*wanted, result.fileno())
sys.exit(code)
"""


class RemoteSandbox:
    """The interface of :class:`~verl_pipeline.sandbox.pool.Sandbox` on a server.

    Args:
        url: of the server, without ``/run_code``.
        workers: requests at a time.
        queue_s: longest time to wait for one of them, in seconds.
    """

    def __init__(self, url: str, workers: int = 32, queue_s: float = 1800.0):
        self.url = url.rstrip("/") + "/run_code"
        self.workers = workers
        self.tier = TIER
        self.queue_s = queue_s
        self.calibration = None  # of a server's processors nothing is known
        self.busy = 0
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(workers)

    @contextmanager
    def worker(self) -> Iterator["RemoteWorker"]:
        """A place among the requests; raises SandboxError if none was free in time."""
        if not self._places.acquire(timeout=self.queue_s):
            raise SandboxError(f"no place for a request to {self.url} within {self.queue_s:g} s")
        with self._lock:
            self.busy += 1
        try:
            yield RemoteWorker(self.url)
        finally:
            with self._lock:
                self.busy -= 1
            self._places.release()

    def close(self) -> None:
        """Nothing is held between requests."""

    def __enter__(self) -> "RemoteSandbox":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class RemoteWorker:
    """Takes programs, as :class:`~verl_pipeline.sandbox.worker.Worker` does."""

    tier = TIER

    def __init__(self, url: str):
        self._url = url

    @contextmanager
    def program(self, source: str, prelude: str = "") -> Iterator["RemoteProgram"]:
        """A program, sent anew with each run."""
        yield RemoteProgram(self._url, source, prelude)


class RemoteProgram:
    """Runs on the server, as :class:`~verl_pipeline.sandbox.worker.Program` does here."""

    def __init__(self, url: str, source: str, prelude: str):
        self._url, self._question = url, {"source": source, "prelude": prelude}

    def run(self, stdin: bytes, limits: Limits) -> Outcome:
        """As ``python3 solution.py < stdin``."""
        return self._run({"entry_point": None}, stdin.decode(), [], limits)

    def call(self, entry_point: str, arguments: Sequence[str], limits: Limits) -> Outcome:
        """Call a function with each of ``arguments`` (encoded sequences)."""
        return self._run(
            {"entry_point": entry_point, "arguments": list(arguments)}, "", [_RESULT], limits
        )

    def begin_serving(self, *_arguments: object) -> Any:
        """Refused: raises SandboxError."""
        raise SandboxError(
            "the tier 'remote' cannot run assert-style tests; use 'namespaces' for them"
        )

    asserts = begin_serving

    def _run(
        self, question: dict[str, Any], stdin: str, fetch: list[str], limits: Limits
    ) -> Outcome:
        files = {name: (INSIDE / name).read_bytes() for name in _MODULES}
        files["verl_pipeline_question.json"] = json.dumps({**self._question, **question}).encode()
        body = {
            "code": _RUN,
            "language": "python",
            "stdin": stdin,
            "compile_timeout": limits.cpu_s,
            "run_timeout": limits.idle_s,
            "memory_limit_MB": limits.memory_bytes >> 20,
            "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
            "fetch_files": fetch,
        }
        begin = time.monotonic()
        answer = self._post(body, limits.idle_s + QUEUE_S)
        run = answer.get("run_result") or {}
        if answer.get("status") not in ("Success", "Failed") or not run:
            raise SandboxError(f"{self._url}: {answer.get('status')}: {answer.get('message')}")
        timed_out = run.get("status") == "TimeLimitExceeded"
        if not timed_out and run.get("return_code") is None:
            raise SandboxError(
                f"{self._url}: the run ended with status {run.get('status')} and no exit code"
            )
        stdout, stderr = ((run.get(name) or "") for name in ("stdout", "stderr"))
        seconds = float(run.get("execution_time") or 0.0)
        result = (answer.get("files") or {}).get(_RESULT, "")
        return Outcome(
            exit_code=run["return_code"] if not timed_out else -9,
            exceeded="wall"
            if timed_out
            else "output"
            if len(stdout) >= limits.output_bytes
            else None,
            stdout=stdout.encode(),
            stderr=stderr[-4096:],
            result=base64.b64decode(result),
            cpu_s=seconds,
            wall_s=time.monotonic() - begin,
            memory_bytes=0,
        )

    def _post(self, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        import requests

        for attempt in range(1, TRIES + 1):
            try:
                answer = requests.post(self._url, json=body, timeout=seconds)
            except requests.RequestException as error:
                raise SandboxError(f"{self._url}: {error}") from error
            if answer.status_code not in RETRY_STATUS or attempt == TRIES:
                break
            time.sleep(PAUSE_S * attempt)
        if not answer.ok:
            raise SandboxError(
                f"{self._url}: HTTP {answer.status_code} {answer.reason}: {answer.text[:300]}"
            )
        try:
            return answer.json()
        except ValueError as error:
            raise SandboxError(f"{self._url}: no JSON: {answer.text[:300]}") from error
