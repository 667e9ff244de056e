"""The tier ``remote``: programs run on a server that speaks SandboxFusion's HTTP API.

API (``POST /run_code``):
https://bytedance.github.io/SandboxFusion/docs/api/run-code-run-code-post

It behaves like the local tiers as far as the API allows: the judge compares outputs, the first
failed test decides, and a failure of the server is a :class:`SandboxError`. The server limits
wall-clock time only, and its isolation depends on its own configuration. Assert-style tests are
refused, because they need a channel between two programs, which the API does not offer.

Invariants:
* Every request has a deadline; a server that does not answer the connection is given up in seconds.
* Whatever a server answers, it is an outcome of the program or a :class:`SandboxError` of one line.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

from verl_pipeline.sandbox.launch_command import INSIDE_FOLDER
from verl_pipeline.sandbox.run_outcome import RunLimits, RunOutcome, SandboxError

REMOTE_TIER = "remote"
# Requests are repeated if the server is busy or restarting, or a gateway before it gave up.
MAX_ATTEMPTS, RETRY_PAUSE_S, RETRIED_STATUSES = 3, 1.0, (429, 502, 503, 504)
# To connect takes milliseconds, or the time to repeat lost packets.
CONNECT_S = 10.0
# For one line of Python, on a server that is just starting.
CHECK_S = 30.0
# Added to the run's own limit, for the server's queue and the network.
REQUEST_GRACE_S = 60.0
_RESULT_FILE = "verl_pipeline_result.json"
_SENT_MODULES = tuple(
    f"{name}.py"
    for name in "exit_codes interpreter_end messages program_runner value_codec".split()
)
_RUN_SCRIPT = """\
import json, sys
sys.set_int_max_str_digits(0)
sys.path.insert(0, ".")
import program_runner
with open("verl_pipeline_request.json") as file:
    request = json.load(file)
if request["entry_point"] is None:
    program_runner.run_main(request["prelude"], request["source"])
with open("verl_pipeline_result.json", "wb") as result:
    inputs = [request[key] for key in ("prelude", "source", "entry_point", "arguments")]
    program_runner.run_calls(*inputs, result.fileno())
"""


class RemoteSandbox:
    """Offers the interface of :class:`~verl_pipeline.sandbox.worker_pool.Sandbox` on a server.

    Args:
        url: of the server, or of its ``/run_code``, as verl's ``reward.sandbox_fusion.url`` has it:
            a URL with a path is used as it is.
        workers: number of requests at a time.
        memory_limit_mb: of each program, in MiB, instead of the problem's own limit.
        queue_s: longest time to wait for a free slot, in seconds.

    Raises:
        ValueError: ``url`` is not the URL of a server.
    """

    def __init__(
        self,
        url: str,
        workers: int = 32,
        queue_s: float = 1800.0,
        memory_limit_mb: int | None = None,
    ):
        has_path = _check_url(url).path.strip("/") != ""
        self.url = url if has_path else url.rstrip("/") + "/run_code"
        self.memory_limit_mb = memory_limit_mb
        self.workers = workers
        self.tier = REMOTE_TIER
        self.queue_s = queue_s
        self.calibration = None  # the speed of a server's CPUs is unknown
        self.busy_workers = 0
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(workers)

    @contextmanager
    def lend_worker(self) -> Iterator["RemoteWorker"]:
        """Lend a slot for requests; raises SandboxError if none becomes free in time."""
        if not self._slots.acquire(timeout=self.queue_s):
            raise SandboxError(
                f"no slot for a request to {self.url} was free within {self.queue_s:g} s: use more "
                "workers or fewer programs at a time"
            )
        with self._lock:
            self.busy_workers += 1
        try:
            yield RemoteWorker(self.url, self.memory_limit_mb)
        finally:
            with self._lock:
                self.busy_workers -= 1
            self._slots.release()

    def check_start(self) -> None:
        """Run one line of Python, so that a failure shows before there is anything to grade.

        Raises:
            SandboxError: the server cannot be reached, or does not run programs.
        """
        program = RemoteProgram(self.url, "print('ready')", "", self.memory_limit_mb, 0.0)
        outcome = program.run(b"", RunLimits(cpu_s=CHECK_S, pauses_s=0.0))
        if outcome.stdout.strip() != b"ready":
            said = _shorten(outcome.stderr or outcome.stdout.decode(errors="replace"))
            raise SandboxError(
                f"{self.url}: the server does not run Python programs: print('ready') ended with "
                f"exit code {outcome.exit_code} and the output {said!r}"
            )

    def close(self) -> None:
        """Do nothing: no resource is held between requests."""

    def __enter__(self) -> "RemoteSandbox":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class RemoteWorker:
    """Loads programs, like :class:`~verl_pipeline.sandbox.sandbox_worker.SandboxWorker`."""

    tier = REMOTE_TIER

    def __init__(self, url: str, memory_limit_mb: int | None):
        self._url, self._memory_limit_mb = url, memory_limit_mb

    @contextmanager
    def load_program(self, source: str, prelude: str = "") -> Iterator["RemoteProgram"]:
        """Yield a program; its source is sent anew with each run."""
        yield RemoteProgram(self._url, source, prelude, self._memory_limit_mb)


class RemoteProgram:
    """Runs on the server, like :class:`~verl_pipeline.sandbox.program_run.SandboxedProgram`."""

    def __init__(
        self,
        url: str,
        source: str,
        prelude: str,
        memory_limit_mb: int | None,
        grace_s: float = REQUEST_GRACE_S,
    ):
        """``grace_s`` is added to a run's own limit, in seconds."""
        self._url, self._program = url, {"source": source, "prelude": prelude}
        self._memory_limit_mb, self._grace_s = memory_limit_mb, grace_s

    def run(self, stdin: bytes, limits: RunLimits) -> RunOutcome:
        """Run it as ``python3 solution.py < stdin``."""
        return self._run_remotely(
            {"entry_point": None}, stdin.decode(errors="surrogatepass"), [], limits
        )

    def call_function(
        self, entry_point: str, arguments: Sequence[str], limits: RunLimits
    ) -> RunOutcome:
        """Call a function with each of ``arguments`` (encoded sequences)."""
        request = {"entry_point": entry_point, "arguments": list(arguments)}
        return self._run_remotely(request, "", [_RESULT_FILE], limits)

    def start_serving(self, *_arguments: object) -> Any:
        """Refuse assert-style tests: raises SandboxError."""
        raise SandboxError(
            "the tier 'remote' cannot run assert-style tests; use 'namespaces' for them"
        )

    run_asserts = run_pytest = start_serving

    def _run_remotely(
        self, request: dict[str, Any], stdin: str, fetched_files: list[str], limits: RunLimits
    ) -> RunOutcome:
        files = {name: (INSIDE_FOLDER / name).read_bytes() for name in _SENT_MODULES}
        files["verl_pipeline_request.json"] = json.dumps({**self._program, **request}).encode()
        body = {
            "code": _RUN_SCRIPT,
            "language": "python",
            "stdin": stdin,
            "compile_timeout": limits.cpu_s,
            "run_timeout": limits.idle_s,
            "memory_limit_MB": self._memory_limit_mb or limits.memory_bytes >> 20,
            "files": {name: base64.b64encode(content).decode() for name, content in files.items()},
            "fetch_files": fetched_files,
        }
        begin = time.monotonic()
        answer = self._post_request(body, limits.idle_s + self._grace_s)
        try:
            return self._read_outcome(answer, limits, time.monotonic() - begin)
        except (AttributeError, TypeError, ValueError, LookupError) as error:
            raise SandboxError(
                f"{self._url}: not an answer of SandboxFusion: {_shorten(json.dumps(answer))}"
            ) from error

    def _read_outcome(self, answer: Any, limits: RunLimits, wall_s: float) -> RunOutcome:
        """Read an answer; any error but SandboxError means that it has another format."""
        run = answer.get("run_result") or {}
        if answer.get("status") not in ("Success", "Failed") or not run:
            message = _shorten(f"{answer['status']}: {answer.get('message')}")
            raise SandboxError(f"{self._url}: {message}")
        timed_out = run.get("status") == "TimeLimitExceeded"
        if not timed_out and run.get("return_code") is None:
            raise SandboxError(
                f"{self._url}: the run ended with status {run.get('status')} and no exit code"
            )
        stdout, stderr = ((run.get(name) or "") for name in ("stdout", "stderr"))
        result = (answer.get("files") or {}).get(_RESULT_FILE, "")
        return RunOutcome(
            exit_code=int(run["return_code"]) if not timed_out else -9,
            exceeded_limit="wall"
            if timed_out
            else "output"
            if len(stdout) >= limits.output_bytes
            else None,
            stdout=stdout.encode(errors="surrogatepass"),
            stderr=stderr[-4096:],
            result=base64.b64decode(result),
            # The server reports wall-clock time only.
            cpu_s=float(run.get("execution_time") or 0.0),
            wall_s=wall_s,
            memory_bytes=0,
        )

    def _post_request(self, body: dict[str, Any], timeout_s: float) -> Any:
        import requests

        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                answer = requests.post(self._url, json=body, timeout=(CONNECT_S, timeout_s))
            except requests.ConnectionError as error:
                raise SandboxError(
                    f"{self._url}: no connection: {_find_cause(error)}; correct the url, or start "
                    "the server"
                ) from error
            except requests.Timeout as error:
                raise SandboxError(f"{self._url}: no answer within {timeout_s:g} s") from error
            except (requests.RequestException, UnicodeError) as error:
                raise SandboxError(f"{self._url}: {_shorten(str(error))}") from error
            if answer.status_code not in RETRIED_STATUSES or attempt == MAX_ATTEMPTS:
                break
            time.sleep(RETRY_PAUSE_S * attempt)
        if not answer.ok:
            status = f"HTTP {answer.status_code} {answer.reason}"
            raise SandboxError(f"{self._url}: {status}: {_shorten(answer.text)}")
        try:
            return answer.json()
        except ValueError as error:
            raise SandboxError(f"{self._url}: not valid JSON: {_shorten(answer.text)}") from error


def _check_url(url: str) -> SplitResult:
    """Return the parts of a server's URL; raises ValueError if it is none."""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an impossible port or address
        is_server = False
    if not is_server or not url.isprintable():
        raise ValueError(f"url {url[:200]!r} is not that of a server; expected http://HOST:PORT")
    return parts


def _find_cause(error: BaseException) -> str:
    """Return the system's own words for why there is no connection."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return _shorten(getattr(error, "strerror", None) or str(error))


def _shorten(text: str) -> str:
    """Return what a server said as one line of text that a terminal may show."""
    line = " ".join(text.split())[:300]
    return "".join(c if c.isprintable() else " " for c in line)
