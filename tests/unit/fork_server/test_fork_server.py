"""A forked process against a plain Python: the same program must see and do the same."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers.forked_programs import MARK, own_server, run
from tests.helpers.patience import scale_deadline
from verl_pipeline.fork_server import client
from verl_pipeline.fork_server.client import ForkedProcess
from verl_pipeline.processes import wait_until_ended

STATE = f"""
import json, os, resource, signal, sys
ignored = [int(n) for n in signal.valid_signals() if n not in (9, 19)
           and signal.getsignal(n) is signal.SIG_IGN]
print(json.dumps({{
    "argv": sys.argv[1:], "name": __name__, "folder": os.getcwd(), "path": sys.path[0],
    "environment": {{k: v for k, v in os.environ.items() if k not in ("_", "SHLVL", "PWD")}},
    "umask": os.umask(0o22), "nice": os.nice(0), "ignored": ignored,
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "processors": sorted(os.sched_getaffinity(0)), "main": sys.modules["__main__"].__name__,
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "oom": open("/proc/self/oom_score_adj").read(), "input": sys.stdin.read(),
    "leads": (os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()),
}}), flush=True)
print({MARK!r} in sys.modules, file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def server():
    with own_server([MARK, "numpy", "multiprocessing.spawn"]) as running:
        yield running
    assert not psutil.pid_exists(running.process.pid) and not running.address.parent.exists()


def ignore_and_block():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.umask(0o027)
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
    Path("/proc/self/oom_score_adj").write_text("500")


@pytest.mark.parametrize("kind", ["script", "-c", "-m"])
@pytest.mark.parametrize("place", [{}, {"start_new_session": True}, {"process_group": 0}])
def test_a_fork_sees_what_a_plain_python_sees(server, tmp_path, kind, place):
    (tmp_path / "state.py").write_text(STATE)
    words = {"script": ["state.py"], "-c": ["-c", STATE], "-m": ["-m", "state"]}[kind]
    both = [
        run(
            server,
            *words,
            "a b",
            "--c",
            forked=forked,
            text="input\n",
            cwd=tmp_path,
            env={**os.environ, "ONLY_HERE": "x"},
            preexec_fn=ignore_and_block,
            **place,
        )
        for forked in (False, True)
    ]
    plain, forked = (json.loads(done.stdout) for done in both)
    assert forked == plain
    assert [done.stderr.strip() for done in both] == ["False", "True"]


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('a reason')",
        "raise ValueError('planted')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit; atexit.register(print, 'at exit')",
        "import threading; threading.Timer(0.2, print, ['late']).start()",
        "print('no newline', end='')",
        "import multiprocessing as m\nprint(m.get_context('spawn').Pool(2).map(abs, [-1, 2]))",
    ],
)
def test_a_fork_ends_as_a_plain_python_ends(server, tmp_path, program):
    (tmp_path / "program.py").write_text(f"if __name__ == '__main__':\n    exec({program!r})\n")
    plain, forked = (run(server, tmp_path / "program.py", forked=f) for f in (False, True))
    assert (forked.returncode, forked.stdout) == (plain.returncode, plain.stdout)
    assert forked.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


def test_descriptors_keep_their_numbers_and_others_are_closed(server):
    reading, writing = os.pipe()
    program = f"import os; os.write({writing}, b'x' * (len(os.listdir('/proc/self/fd')) > 5))"
    done = run(server, "-c", program, forked=True, pass_fds=[writing])
    os.close(writing)
    assert done.returncode == 0 and os.read(reading, 10) == b""
    os.close(reading)


def test_forks_draw_different_random_numbers(server):
    program = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (run(server, "-c", program, forked=True).stdout.split() for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"VLLM_LOGGING_LEVEL": "DEBUG"},
        {"PYTHONPATH": "/elsewhere"},
        {"HF_HUB_CACHE": "/elsewhere"},
    ],
)
def test_what_imports_read_differently_gets_a_plain_python(server, changed):
    program = f"import sys; print({MARK!r} in sys.modules)"
    done = run(server, "-c", program, forked=True, env={**os.environ, **changed})
    assert (done.returncode, done.stdout) == (0, "False\n")


def test_options_that_a_fork_cannot_follow_get_a_plain_python(server):
    done = run(
        server, "-X", "utf8", "-c", f"import sys; print({MARK!r} in sys.modules)", forked=True
    )
    assert done.stdout == "False\n"


def start_sleeper(server):
    """A launcher, and the process it stands for."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    words = [server.launcher, "-c", program]
    launcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    return launcher, psutil.Process(int(launcher.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_kills_the_launcher_kills_the_process(server, number):
    launcher, process = start_sleeper(server)
    launcher.send_signal(number)
    assert wait_until_ended([process], scale_deadline(30)) == []
    assert launcher.wait(30) == -number
    launcher.stdout.close()


def test_who_kills_the_process_is_seen_at_the_launcher(server):
    launcher, process = start_sleeper(server)
    assert process.parent().pid == server.process.pid
    process.kill()
    assert launcher.wait(30) == -signal.SIGKILL
    launcher.stdout.close()


def test_a_forked_process_is_used_like_popen(server, tmp_path):
    (tmp_path / "hello.py").write_text("import os; print('hello', os.environ['WHO'])")
    environment = {**os.environ, "WHO": "you"}
    with open(tmp_path / "log", "w") as log:
        process = ForkedProcess(
            server, ["hello.py"], environment=environment, folder=tmp_path, output=log.fileno()
        )
        sleeper = ForkedProcess(
            server,
            ["-c", "import time; time.sleep(600)"],
            environment=environment,
            folder=tmp_path,
            output=log.fileno(),
        )
    assert process.wait(scale_deadline(30)) == 0 == process.poll()
    assert (tmp_path / "log").read_text() == "hello you\n"
    assert sleeper.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.05)
    sleeper.kill()
    assert sleeper.wait(30) == -signal.SIGKILL


OWNER = """
import subprocess, sys, time
from verl_pipeline.fork_server import client
server = client.start_server(["json"], {})
program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
sleeper = subprocess.Popen([server.launcher, "-c", program], stdout=subprocess.PIPE, text=True)
pid = sleeper.stdout.readline().strip()
print(server.process.pid, sleeper.pid, pid, server.address, flush=True)
time.sleep(600)
"""


def test_all_end_when_the_owner_is_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    *pids, address = owner.stdout.readline().split()
    processes = [psutil.Process(int(pid)) for pid in pids]
    owner.kill()
    owner.wait()
    processes[-1].terminate()  # as a worker ends when Ray has gone
    assert wait_until_ended(processes, scale_deadline(60)) == []
    assert not Path(address).parent.exists()
    owner.stdout.close()


def test_without_its_server_a_launcher_is_a_plain_python():
    with own_server([MARK]) as server:
        program = f"import sys; print({MARK!r} in sys.modules)"
        assert run(server, "-c", program, forked=True).stdout == "True\n"
        launcher, _process = start_sleeper(server)
        os.kill(server.process.pid, signal.SIGKILL)
        assert launcher.wait(30) == -signal.SIGKILL  # its process went with the server
        launcher.stdout.close()
        assert run(server, "-c", program, forked=True).stdout == "False\n"


def test_ray_is_told_of_the_launcher_unless_the_user_chose_a_python(server):
    assert client.add_launcher(None) == {"py_executable": str(server.launcher)}
    assert client.add_launcher({"py_executable": None}) == {"py_executable": str(server.launcher)}
    chosen = {"py_executable": "uv run"}
    assert client.add_launcher(chosen) == chosen
    for chosen in ({"pip": ["six"]}, {"conda": "other"}):
        assert client.add_launcher(chosen) == chosen
