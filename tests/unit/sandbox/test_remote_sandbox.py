"""The remote tier with a small server that speaks SandboxFusion's API and runs programs.

The server isolates nothing, so only the harmless programs of this file are sent to it.
"""

import contextlib
import json
import socket

import pytest
from typer.testing import CliRunner

from tests.helpers.run_code_server import serve_run_code
from verl_pipeline.cli import app
from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest, Verdict, grade
from verl_pipeline.sandbox import (
    RemoteSandbox,
    RunLimits,
    SandboxError,
    make_sandbox,
    remote_sandbox,
)

pytestmark = [pytest.mark.medium, pytest.mark.timeout(120)]
ECHO = Problem("echo", "test", (StdinTest("a\n", "a"), StdinTest("b\n", "b")), time_s=2.0)
ADD = Problem(
    "add",
    "test",
    (CallTest((1, 2), 3), CallTest(({1: (2,)}, []), [{1: [2]}])),
    entry_point="add",
    time_s=2.0,
)


@pytest.fixture
def server():
    with serve_run_code() as running:
        yield running


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


@pytest.mark.parametrize("path", ["", "/", "/run_code", "/functions/run?region=eu"])
def test_a_url_means_what_it_means_to_verl(server, path):
    """verl posts to the URL as it is; a server's bare address is completed."""
    url = f"http://127.0.0.1:{server.server_port}{path}"
    with make_sandbox("remote", url=url, memory_limit_mb=512) as sandbox:
        assert grade(ECHO, "print(input())", sandbox).verdict is Verdict.ACCEPTED
    wanted = path if path.strip("/") else "/run_code"
    assert set(server.paths) == {wanted}
    assert {request["memory_limit_MB"] for request in server.requests} == {512}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tier": "remote"}, "needs the url"),
        ({"url": "http://127.0.0.1:9"}, "takes no url"),
        ({"memory_limit_mb": 512}, "no memory_limit_mb"),
    ],
)
def test_settings_of_another_tier_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        make_sandbox(**settings)


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ([404], "HTTP 404 Not Found"),
        ([500], "HTTP 500 Internal Server Error"),
        ([503] * 3, "HTTP 503"),
        (["<!doctype html>\n<title>Welcome</title>\n"], "not valid JSON: <!doctype html> <title>"),
        (["[]"], "not an answer of SandboxFusion: []"),
        (["5"], "not an answer of SandboxFusion: 5"),
        (["{}"], "not an answer of SandboxFusion: {}"),
        (['{"status": "Success", "run_result": "no"}'], "not an answer of SandboxFusion"),
        (
            ['{"status": "Success", "run_result": {"return_code": "zero"}}'],
            "not an answer of SandboxFusion",
        ),
        (
            ['{"status": "Success", "run_result": {"return_code": 0, "stdout": 5}}'],
            "not an answer of SandboxFusion",
        ),
        (
            ['{"status": "Success", "run_result": {"return_code": 0, "execution_time": "1 s"}}'],
            "not an answer of SandboxFusion",
        ),
        (
            ['{"status": "Success", "run_result": {"return_code": 0, "stdout": "hello"}}'],
            "the server does not run Python programs: print('ready') ended with exit code 0 and "
            "the output 'hello'",
        ),
    ],
)
def test_a_server_that_runs_no_programs_is_refused_at_the_start(
    server, sandbox, monkeypatch, failures, reason
):
    monkeypatch.setattr(remote_sandbox, "RETRY_PAUSE_S", 0.01)
    server.failures += failures
    with pytest.raises(SandboxError) as error:
        sandbox.check_start()
    assert reason in str(error.value) and str(error.value).startswith(sandbox.url)
    assert str(error.value).isprintable()  # one line
    sandbox.check_start()  # now it runs programs


@pytest.mark.parametrize(
    "url",
    [
        *["", "localhost", "localhost:8080", "127.0.0.1:8080/run_code", "ftp://host/", "http://"],
        *["http://[", "http://host:port", "http://host:99999", "http://:80", "http://a\nb", "///"],
    ],
)
def test_a_url_of_no_server_is_refused(url):
    with pytest.raises(ValueError, match="is not that of a server; expected http://HOST:PORT"):
        make_sandbox("remote", url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid:80"])
def test_grade_says_at_once_that_a_server_is_unreachable(tmp_path, url):
    problem = {"id": 1, "source": "taco", "tests": {"inputs": ["a"], "outputs": ["a"]}}
    paths = [tmp_path / name for name in ("problems.jsonl", "solutions.jsonl")]
    paths[0].write_text(json.dumps(problem))
    paths[1].write_text(json.dumps({"id": 1, "program": ""}))
    options = ["--tier", "remote", "--url", url, "--output", str(tmp_path / "verdicts.jsonl")]
    run = CliRunner().invoke(app, ["grade", *map(str, paths), *options])
    assert run.exit_code == 2 and not run.stdout and not (tmp_path / "verdicts.jsonl").exists()
    [line] = run.stderr.splitlines()
    assert line.startswith(f"{url}/run_code: no connection: "), line


def test_a_server_that_takes_no_connection_is_given_up(monkeypatch):
    """Its queue of connections is full, so that nothing answers."""
    monkeypatch.setattr(remote_sandbox, "CONNECT_S", 0.3)
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        sandbox = RemoteSandbox(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(SandboxError, match="no connection: .*timed out"):
            sandbox.check_start()


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(remote_sandbox, "CHECK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sandbox = RemoteSandbox(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(SandboxError, match="no answer within 0.3 s"):
            sandbox.check_start()


def test_an_input_with_half_a_surrogate_raises_nothing(sandbox):
    """JSON can carry it; whether a server can is its own affair."""
    problem = Problem("surrogate", "test", (StdinTest("\ud800\n", "1"),), time_s=2.0)
    assert grade(problem, "print(1)", sandbox).verdict in (Verdict.ACCEPTED, Verdict.INFRASTRUCTURE)
