"""The processes in which the reward for mathematics compares answers: starts, crashes and forks."""

import asyncio
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from tests.helpers.math_reward import (
    ENDLESS,
    ENDLESS_IN_C,
    get_verdict,
    list_verifiers,
    score_response,
)
from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.processes import wait_until_ended
from verl_pipeline.rewards import math as math_reward

pytest.importorskip("math_verify")
pytestmark = [
    pytest.mark.medium,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("no_other_verifiers"),
]

ENDS_AFTER_A_REQUEST = "import os, signal; print('ready', flush=True); input(); {}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            ENDS_AFTER_A_REQUEST.format("os.kill(os.getpid(), signal.SIGKILL)"),
            "infrastructure",
        ),
        (
            ENDS_AFTER_A_REQUEST.format("os.kill(os.getpid(), signal.SIGTERM)"),
            "infrastructure",
        ),
        (ENDS_AFTER_A_REQUEST.format("os.kill(os.getpid(), signal.SIGSEGV)"), "wrong_answer"),
        (ENDS_AFTER_A_REQUEST.format("os.abort()"), "wrong_answer"),
        (ENDS_AFTER_A_REQUEST.format("raise MemoryError"), "wrong_answer"),
        ("import os; os.abort()", "infrastructure"),
        ("import nothing_of_this_name", "infrastructure"),
    ],
)
def test_the_verdict_depends_on_how_the_process_ends(replace_verifier, script, expected):
    replace_verifier(script)
    assert get_verdict("2", "2") == expected


def test_a_process_that_cannot_start_is_infrastructure(monkeypatch, replace_verifier):
    replace_verifier("")
    monkeypatch.setattr(math_reward, "_VERIFIER_COMMAND", ["/nowhere/python"])
    assert get_verdict("2", "2") == "infrastructure"


def test_a_comparison_is_repeated_after_a_kill_from_outside(monkeypatch):
    assert get_verdict("2", "2") == "accepted"
    (idle,) = list_verifiers()
    idle.kill()
    assert get_verdict("\\sqrt{4}", "2") == "accepted"

    async def kill_while_it_compares():
        task = asyncio.create_task(math_reward.compute_score("math", f"\\boxed{{{ENDLESS}}}", "2"))
        await asyncio.sleep(0.5)
        list_verifiers()[0].kill()
        return await task

    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 1.0)
    assert "1 s of CPU" in asyncio.run(kill_while_it_compares())["reason"]


def test_a_comparison_does_not_block_the_event_loop(monkeypatch):
    monkeypatch.setattr(math_reward, "CPU_LIMIT_S", 1.0)

    async def count_ticks():
        response = f"\\boxed{{{ENDLESS_IN_C}}}"
        task = asyncio.create_task(math_reward.compute_score("math", response, "2"))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(count_ticks()) > 20


def test_a_thread_other_than_the_main_one_can_score():
    results = []
    thread = threading.Thread(target=lambda: results.append(score_response("\\boxed{2}", "2")))
    thread.start()
    thread.join(120)
    assert results[0]["score"] == 1.0


SCORES_BEFORE_AND_AFTER_A_FORK = """
import asyncio, os, psutil
from verl_pipeline.rewards.math import compute_score

def score():
    result = asyncio.run(compute_score("math", "\\\\boxed{\\\\sqrt{4}}", "2"))
    assert result["score"] == 1.0
    children = psutil.Process().children()
    return [child.pid for child in children if "serve_comparisons()" in " ".join(child.cmdline())]

(mine,) = score()
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, str(score()).encode())
    os._exit(0)
theirs = eval(os.read(reader, 100))
os.wait()
assert len(theirs) == 1 and mine not in theirs and mine in score()
print(mine, *theirs)
"""


def test_a_fork_has_its_own_process_and_none_outlives_its_interpreter():
    run = subprocess.run(
        [sys.executable, "-c", SCORES_BEFORE_AND_AFTER_A_FORK],
        capture_output=True,
        text=True,
        timeout=scale_deadline(120),
    )
    assert run.returncode == 0, run.stderr
    pids = [int(pid) for pid in run.stdout.split()]
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert len(pids) == 2 and wait_until_ended(left, scale_deadline(10)) == []


def test_a_process_ends_with_its_killed_parent():
    script = "import asyncio, os; from verl_pipeline.rewards.math import compute_score\n"
    script += "asyncio.run(compute_score('', '\\\\boxed{2}', '3')); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        verifiers = wait_until(lambda: list_verifiers(parent.pid), 60, "the verifier to start")
        parent.send_signal(signal.SIGKILL)
    assert wait_until_ended(verifiers, scale_deadline(10)) == []
