"""The remote tier with a small server that speaks SandboxFusion's API and runs programs.

The server isolates nothing, so only the harmless programs of this file are sent to it.
"""

import base64
import json
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest, Verdict, grade
from verl_pipeline.sandbox import RemoteSandbox, RunLimits, SandboxError, remote_sandbox

pytestmark = [pytest.mark.medium, pytest.mark.timeout(120)]
ECHO = Problem("echo", "test", (StdinTest("a\n", "a"), StdinTest("b\n", "b")), time_s=2.0)
ADD = Problem(
    "add",
    "test",
    (CallTest((1, 2), 3), CallTest(({1: (2,)}, []), [{1: [2]}])),
    entry_point="add",
    time_s=2.0,
)


class RunCodeHandler(BaseHTTPRequestHandler):
    """``POST /run_code``; ``server.failures`` are HTTP statuses or bodies to answer with first."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        failure = self.server.failures.pop(0) if self.server.failures else None
        if isinstance(failure, int):
            self.send_error(failure)
            return
        body = failure if failure is not None else json.dumps(run_request(request))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments):
        pass


def run_request(request):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in request["files"].items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        begin = time.monotonic()
        result = {"status": "Finished", "return_code": None, "stdout": "", "stderr": ""}
        try:
            done = subprocess.run(
                [sys.executable, "-s", "-c", request["code"]],
                input=request["stdin"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=request["run_timeout"],
            )
            result |= {"return_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        except subprocess.TimeoutExpired:
            result["status"] = "TimeLimitExceeded"
        found = [Path(folder) / name for name in request["fetch_files"]]
        files = {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in found
            if path.exists()
        }
        result["execution_time"] = time.monotonic() - begin
    status = "Success" if result["return_code"] == 0 else "Failed"
    return {"status": status, "message": "", "run_result": result, "files": files}


@pytest.fixture
def server():
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), RunCodeHandler)
    http_server.failures, http_server.requests = [], []
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    yield http_server
    http_server.shutdown()
    http_server.server_close()
    thread.join(10)


@pytest.fixture
def sandbox(server):
    return RemoteSandbox(f"http://127.0.0.1:{server.server_port}/", workers=2)


@pytest.mark.parametrize(
    ("problem", "program", "verdict"),
    [
        (ECHO, "print(input())", Verdict.ACCEPTED),
        (ECHO, "print('a')", Verdict.WRONG_ANSWER),
        (ECHO, "1 / 0", Verdict.RUNTIME_ERROR),
        (ECHO, "print(", Verdict.COMPILE_ERROR),
        (ADD, "def add(a, b):\n    return a + b if a == 1 else [a]", Verdict.ACCEPTED),
        (
            ADD,
            "class Solution:\n    def add(self, a, b):\n        print(3)\n        return 4",
            Verdict.WRONG_ANSWER,
        ),
        (ADD, "def other(): pass", Verdict.RUNTIME_ERROR),
    ],
)
def test_verdicts_equal_those_of_the_local_tiers(sandbox, problem, program, verdict):
    result = grade(problem, program, sandbox)
    assert (result.verdict, result.tier) == (verdict, "remote"), result


def test_a_sleeping_program_exceeds_the_time_limit(sandbox, monkeypatch):
    monkeypatch.setattr(RunLimits, "idle_s", property(lambda self: 0.5))
    assert grade(ECHO, "import time\ntime.sleep(30)", sandbox).verdict is Verdict.TIME_LIMIT


def test_the_server_gets_no_expected_output(server, sandbox):
    problem = Problem("secret", "test", (StdinTest("x", "correct horse battery"),), time_s=2.0)
    assert grade(problem, "print(1)", sandbox).verdict is Verdict.WRONG_ANSWER
    assert "horse" not in json.dumps(server.requests)


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ([500] * 2, "HTTP 500"),
        ([503] * 6, "HTTP 503"),
        (["no json"] * 2, "not valid JSON"),
        (
            ['{"status": "SandboxError", "message": "no memory", "run_result": null}'] * 2,
            "no memory",
        ),
        (
            ['{"status": "Failed", "message": "", "run_result": {"status": "Error"}}'] * 2,
            "no exit code",
        ),
    ],
)
def test_a_failing_server_is_infrastructure(server, sandbox, monkeypatch, failures, reason):
    monkeypatch.setattr(remote_sandbox, "RETRY_PAUSE_S", 0.01)
    server.failures += failures
    result = grade(ECHO, "print(input())", sandbox)
    assert result.verdict is Verdict.INFRASTRUCTURE and reason in result.reason


def test_a_request_to_a_busy_server_is_repeated(server, sandbox, monkeypatch):
    monkeypatch.setattr(remote_sandbox, "RETRY_PAUSE_S", 0.01)
    server.failures += [429, 503]
    assert grade(ECHO, "print(input())", sandbox).verdict is Verdict.ACCEPTED


def test_an_unreachable_server_and_a_full_queue_are_named():
    unreachable = RemoteSandbox("http://127.0.0.1:9", workers=1, queue_s=0.1)
    assert "127.0.0.1:9/run_code" in grade(ECHO, "print(input())", unreachable).reason
    with (
        unreachable.lend_worker(),
        pytest.raises(SandboxError, match="no slot for a request"),
        unreachable.lend_worker(),
    ):
        pass


def test_assert_style_tests_are_refused(sandbox):
    result = grade(
        Problem("a", "test", (AssertTest("assert f() == 1", ("f",)),)), "def f(): return 1", sandbox
    )
    assert (
        result.verdict is Verdict.INFRASTRUCTURE
        and "cannot run assert-style tests" in result.reason
    )
