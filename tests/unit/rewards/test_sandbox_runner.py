"""Our sandbox under verl's own Sandbox Fusion reward, by the scheme of a URL."""

import json
import threading
from types import SimpleNamespace

import pytest
from verl.utils.reward_score import default_compute_score
from verl.utils.reward_score.sandbox_fusion import utils as sandbox_fusion

from tests.helpers.run_code_server import serve_run_code
from verl_pipeline.rewards.sandbox_runner import run_code
from verl_pipeline.verl_adapter.rewards.sandbox_runners import SCHEME, register_runner

pytestmark = [pytest.mark.medium, pytest.mark.timeout(300)]
URL = "verl-pipeline://"
STDIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLS = {"fn_name": "total", "inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"]}


def run(code, stdin="", timeout=5, memory_mb=1024, **named):
    return run_code(URL, code, stdin, timeout, timeout, memory_mb, **named)


def compute_score(program, tests, url=URL):
    """verl's own reward, as its trainer calls it when ``reward.sandbox_fusion.url`` is set."""
    return default_compute_score(
        "taco",
        f"```python\n{program}\n```",
        json.dumps(tests),
        sandbox_fusion_url=url,
        concurrent_semaphore=threading.Semaphore(4),
        memory_limit_mb=1024,
    )


@pytest.mark.parametrize(
    ("program", "tests", "score"),
    [
        ("print(sum(map(int, input().split())))", STDIN, 1.0),
        ("print(3)", STDIN, 0.5),
        ("print(", STDIN, 0.0),
        ("import sys; print(3); sys.exit(1)", STDIN, 0.0),
        ("def total(a, b):\n    return a + b", CALLS, 1.0),
        ("class Solution:\n    def total(self, a, b):\n        return 3", CALLS, 0.5),
    ],
)
def test_verls_reward_scores_programs_that_our_sandbox_ran(program, tests, score):
    assert compute_score(program, tests) == score


def test_the_result_is_that_of_sandbox_fusion():
    answer, error = run("print(input())", "a\nb")
    assert error is None
    assert answer["status"] == "Success" and answer["compile_result"] is None
    assert answer["run_result"].pop("execution_time") > 0
    assert answer["run_result"] == {
        "status": "Finished",
        "return_code": 0,
        "stdout": "a\n",
        "stderr": "",
    }
    answer, _ = run("raise SystemExit(3)")
    assert (answer["status"], answer["run_result"]["return_code"]) == ("Failed", 3)
    answer, _ = run("while True: pass", timeout=1)
    assert answer["run_result"]["status"] == "TimeLimitExceeded"
    answer, _ = run("1 / 0")
    assert "ZeroDivisionError" in answer["run_result"]["stderr"]


def test_the_memory_limit_is_verls():
    program = "a = bytearray(300 << 20); print(sum(a[::4096]))"
    assert run(program)[0]["status"] == "Success"
    assert run(program, memory_mb=128)[0]["status"] == "Failed"


def test_a_program_reaches_neither_network_nor_home_nor_its_siblings():
    for program in (
        "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
        "import os; os.listdir('/root')[0]",
        "import os; os.kill(os.getppid(), 9); raise SystemExit(9)",
    ):
        answer, error = run(program)
        assert error is None and answer["status"] == "Failed", program


@pytest.mark.parametrize(
    ("url", "language", "problem"),
    [
        (URL, "cpp", "language 'cpp' is not supported"),
        ("verl-pipeline://docker", "python", "no isolation tier 'docker'"),
    ],
)
def test_what_cannot_be_run_is_an_error_of_the_call(url, language, problem):
    answer, error = run_code(url, "print(1)", "", 1, 1, 1024, language)
    assert answer is None and problem in error


def test_text_that_is_no_utf8_does_not_end_the_call():
    answer, error = run("print(input() == '?', '\udc80' == '?')", "\udc80")
    assert error is None and answer["run_result"]["stdout"] == "True True\n"


def test_urls_of_other_schemes_go_where_they_went():
    with serve_run_code() as server:
        url = f"http://127.0.0.1:{server.server_port}/run_code"
        assert compute_score("print(sum(map(int, input().split())))", STDIN, url) == 1.0
        assert server.paths == ["/run_code"] * 2


def test_importing_verls_module_is_enough_and_twice_changes_nothing():
    wrapped = sandbox_fusion.call_sandbox_api
    assert wrapped.is_verl_pipelines
    register_runner(sandbox_fusion, run_code)
    assert sandbox_fusion.call_sandbox_api is wrapped


def test_a_verl_with_a_registry_gets_our_runner_there_and_is_not_patched():
    runners = {}

    def register_sandbox_runner(scheme, run):
        runners[scheme] = run

    def call_sandbox_api():
        raise AssertionError("not called")

    module = SimpleNamespace(
        register_sandbox_runner=register_sandbox_runner, call_sandbox_api=call_sandbox_api
    )
    register_runner(module, run_code)
    assert runners == {SCHEME: run_code}
    assert module.call_sandbox_api is call_sandbox_api
