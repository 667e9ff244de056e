"""Each run of a program starts from the same observable state, however many came before."""

import ast
import json
import subprocess
import sys

import pytest

from tests.helpers.sandbox_programs import QUICK_LIMITS
from verl_pipeline.sandbox import Sandbox
from verl_pipeline.sandbox.inside.value_codec import decode_value, encode_value
from verl_pipeline.sandbox.launch_command import INSIDE_FOLDER, PRELOADED_MODULES

pytestmark = pytest.mark.timeout(60)

# First, what looking changes: the memory. `kinds` make objects from each of Python's lists of freed
# objects, and blocks of several sizes from Python's and libc's allocators.
DUMPS_MEMORY = """
import gc
state = {"collector": (gc.get_count(), gc.get_freeze_count(), gc.get_stats(), gc.get_threshold())}
import sys
state["blocks"] = sys.getallocatedblocks()
kinds = (
    object, list, dict, set, bytearray, lambda: [1], lambda: {1: 2}, lambda: (kinds,),
    lambda: (kinds,) * 2, lambda: (kinds,) * 5, lambda: lambda: kinds, lambda: 10 ** len(made),
    lambda: 1.5 * len(made), lambda: iter([]), lambda: slice(1), lambda: made.append,
    lambda: (item for item in made), lambda: type("A", (), {}), lambda: memoryview(b"x"),
    lambda: bytes(100), lambda: bytes(600), lambda: bytes(5000), lambda: bytes(70000),
)
made = []
for kind in kinds:
    made += [[kind() for _ in range(30)]]
state["addresses"] = [[id(item) for item in items] for items in made]
"""
# Then everything else that a program can read of its process and of the jail, without clocks.
DUMPS_STATE = """
import os, resource, signal, threading

def read(path):
    try:
        with open(path, "rb", 0) as file:
            return file.read(1 << 16).decode("latin-1")
    except OSError as error:
        return error.errno

limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
state["limits"] = [(name, resource.getrlimit(getattr(resource, name))) for name in limits]
state["children"] = resource.getrusage(resource.RUSAGE_CHILDREN)
state["ids"] = os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), threading.get_native_id()
state["users"] = os.getresuid(), os.getresgid(), os.getgroups()
state["threads"] = threading.main_thread().native_id, list(map(repr, threading.enumerate()))
state["scheduling"] = os.getpriority(0, 0), os.sched_getscheduler(0), list(os.sched_getaffinity(0))
state["signals"] = [str(signal.getsignal(number)) for number in signal.valid_signals()]
state["mask"] = len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), list(signal.sigpending())
state["python"] = sys.argv, sys.path, str(sys.flags), sys.getrecursionlimit(), list(sys.modules)
state["files"] = os.umask(0o22), os.getcwd(), os.listdir("."), os.statvfs("."), os.listdir("/proc")
state["environment"] = dict(os.environ)
descriptors = [number for number in range(128) if os.path.exists(f"/proc/self/fd/{number}")]
state["descriptors"] = [
    (number, os.readlink(f"/proc/self/fd/{number}"), os.lseek(number, 0, os.SEEK_CUR))
    for number in descriptors if number < 3
], descriptors
paths = ". .. / /tmp /proc /dev /dev/null /dev/pts /dev/shm /inside /scratch /usr".split()
state["status"] = []
for path in paths:
    status = os.stat(path)
    # The links of /proc count the processes of the machine.
    fields = status.st_mode, status.st_ino, status.st_uid, path == "/proc" or status.st_nlink
    is_new = path in (".", "/tmp", "/proc")
    times = () if is_new else (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    state["status"].append((path, *fields, *times))
nameless = os.open(".", os.O_TMPFILE | os.O_RDWR)
state["inode"] = os.fstat(nameless).st_ino
CLOCKS = "arch_status autogroup numa_maps sched schedstat smaps smaps_rollup".split()
CONTENTS = "attr clear_refs fd fdinfo map_files mem net ns pagemap task cwd root exe".split()
# Which pages of files are resident depends on what the machine has cached.
PARTS = ("stat", "statm", "status", "syscall")
for name in sorted(set(os.listdir("/proc/self")) - {*CLOCKS, *CONTENTS, *PARTS}):
    state[name] = read(f"/proc/self/{name}")
# Number and device of a mount are the lowest that is free on the machine.
state["mountinfo"] = [line.split()[3:] for line in state["mountinfo"].splitlines()]
stat = read("/proc/self/stat").split()
# All but the run's own faults, times, start, last processor and sizes (proc_pid_stat(5)).
state["stat"] = stat[:9] + stat[10:11] + stat[12:13] + stat[15:21] + stat[24:38]
status = read("/proc/self/status").splitlines()
VARYING = ("voluntary_ctxt", "nonvoluntary_ctxt", "VmHWM", "VmRSS", "RssFile")
state["proc_status"] = [line for line in status if not line.startswith(VARYING)]
for name in ("unix", "protocols", "dev", "route"):
    state["net", name] = read(f"/proc/self/net/{name}")
for name in os.listdir("/proc/self/ns"):
    state["ns", name] = os.readlink(f"/proc/self/ns/{name}")
"""
# Last, it leaves traces wherever it can: the next run must not find one.
LEAVES_TRACES = """
import ctypes, fcntl, random
for path in ("/proc/loadavg", "/proc/1/stat", "/proc/sys", "/proc/self/net/unix", "/proc/net"):
    os.path.exists(path)
for folder in ("/dev/pts", "/dev/shm", "/dev", "/proc", "/scratch", "/inside"):
    os.listdir(folder)
for number in range(20):
    os.open(".", os.O_TMPFILE | os.O_RDWR)
    os.mkdir(f"folder{number}")
    open(f"folder{number}/file", "w").write("x" * 100000)
    if os.fork() == 0:
        if number % 2:
            os.setsid()
            signal.pause()
        os._exit(0)
os.chmod(".", 0o755)
gc.collect()
random.seed(1)
sys.setrecursionlimit(99)
bytes(50 << 20)
"""
REPORTS = """
import json
text = json.dumps({str(key): value for key, value in state.items()}, default=str)
"""
WATCHED = DUMPS_MEMORY + DUMPS_STATE + REPORTS


@pytest.fixture(scope="module")
def worker():
    with Sandbox(1) as sandbox, sandbox.lend_worker() as lent:
        yield lent


def check_equal(states):
    first = json.loads(states[0])
    for number, state in enumerate(states[1:], 2):
        other = json.loads(state)
        assert sorted(other) == sorted(first)
        differing = {key: (first[key], other[key]) for key in first if other[key] != first[key]}
        assert not differing, f"run {number} shows {differing}"


def test_the_first_runs_of_a_program_are_alike(worker):
    """The first runs of its supervisor, too: nothing has warmed it up."""
    with worker.load_program(WATCHED + "print(text)\n" + LEAVES_TRACES) as program:
        outcomes = [program.run(b"", QUICK_LIMITS) for _ in range(5)]
        assert [outcome.exit_code for outcome in outcomes] == [0] * 5, outcomes[0].stderr
        check_equal([outcome.stdout for outcome in outcomes])


def test_runs_are_alike_whatever_other_kinds_of_runs_came_before(worker):
    with worker.load_program(WATCHED + "print(text)\ndef f(x):\n    return x") as program:
        states = []
        for number in range(4):
            states.append(program.run(b"", QUICK_LIMITS).stdout)
            arguments = [encode_value((n,)) for n in range(number + 1)]
            assert program.call_function("f", arguments, QUICK_LIMITS).exit_code == 0
            assert program.run(b"x" * 10_000, QUICK_LIMITS).exit_code == 0
        check_equal(states)


def test_runs_that_call_functions_are_alike(worker):
    with worker.load_program(WATCHED + "def f(x):\n    return text") as program:
        arguments = [encode_value((0,))]
        outcomes = [program.call_function("f", arguments, QUICK_LIMITS) for _ in range(5)]
        assert [outcome.exit_code for outcome in outcomes] == [0] * 5, outcomes[0].stderr
        check_equal([decode_value(outcome.result.decode()) for outcome in outcomes])


PRINTS_TIMES = """
import os, time
changed = [os.stat(path).st_ctime_ns for path in (".", "/proc")]
for path in ("/proc/loadavg", "/proc/sys"):
    os.path.exists(path)
print(*changed, time.time_ns())
time.sleep(0.05)  # times of files may lag one tick of the kernel behind
"""


def test_mounts_are_newer_than_the_run_before(worker):
    with worker.load_program(PRINTS_TIMES) as program:
        begin_before = 0
        for _ in range(3):
            *changed, begin = map(int, program.run(b"", QUICK_LIMITS).stdout.split())
            assert all(begin_before < time <= begin for time in changed)
            begin_before = begin


def test_unseeded_random_numbers_differ_from_run_to_run(worker):
    with worker.load_program("import random\nprint(random.random())") as program:
        assert len({program.run(b"", QUICK_LIMITS).stdout for _ in range(5)}) == 5
    with worker.load_program("import random\nrandom.seed(1)\nprint(random.random())") as program:
        assert len({program.run(b"", QUICK_LIMITS).stdout for _ in range(5)}) == 1


LISTS_FORK_HOOKS = """
import importlib, os, sys
hooks = []
os.register_at_fork = lambda **functions: hooks.append(functions)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sorted({hook[key].__qualname__ for hook in hooks for key in hook}))
"""


# threading, random, and three times logging.
KNOWN_FORK_HOOKS = {"_after_fork", "Random.seed"} | {
    "_acquireLock",
    "_releaseLock",
    "_after_at_fork_child_reinit_locks",
}


def test_the_zygote_forks_without_hooks_that_a_single_thread_needs():
    """``fork_plainly`` says why the known ones are not needed, or called by itself."""
    modules = [*PRELOADED_MODULES, *(path.stem for path in INSIDE_FOLDER.glob("*.py"))]
    command = [sys.executable, "-c", LISTS_FORK_HOOKS, *modules]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=INSIDE_FOLDER
    ).stdout
    assert "Random.seed" in output and set(ast.literal_eval(output)) <= KNOWN_FORK_HOOKS


USES_PROCESSES_AND_THREADS = """
import concurrent.futures, multiprocessing, os, subprocess, threading
assert threading.main_thread().native_id == os.getpid() == threading.get_native_id()
with concurrent.futures.ThreadPoolExecutor(4) as threads:
    print(sum(threads.map(abs, range(-5, 5))), flush=True)
child = os.fork()
if child == 0:
    thread = threading.Thread(target=print, args=("child",), kwargs={"flush": True})
    thread.start()
    thread.join()
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(subprocess.run(["/bin/echo", "x"], capture_output=True).stdout)
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe()
process = context.Process(target=theirs.send, args=("sent",))
process.start()
print(ours.recv())
process.join()
"""


def test_programs_can_use_threads_and_processes(worker):
    with worker.load_program(USES_PROCESSES_AND_THREADS) as program:
        outcome = program.run(b"", QUICK_LIMITS)
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.stdout.split() == [b"25", b"child", b"3", b"b'x\\n'", b"sent"]
