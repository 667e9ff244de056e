"""What a program can see: nothing of programs before it, and nothing of the machine."""

import pytest

from tests.helpers.patience import wait_until
from tests.helpers.sandbox_programs import QUICK_LIMITS, list_jail_processes, run_program
from verl_pipeline.sandbox import RunLimits, Sandbox
from verl_pipeline.sandbox.launch_command import INSIDE_FOLDER
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

pytestmark = pytest.mark.timeout(20)

LEAVES_TRACES = """
import builtins, os, sys, json
builtins.leak = 1
json.loads = None
sys.modules['math'] = None
open('left.txt', 'w').write('x')
os.environ['LEFT'] = '1'
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        import time
        time.sleep(30)
"""
FINDS_TRACES = """
import builtins, os, json, math
print(hasattr(builtins, 'leak'), json.loads is None, os.listdir('.'), 'LEFT' in os.environ)
"""


def test_a_program_leaves_nothing_for_the_next(sandbox):
    assert run_program(sandbox, LEAVES_TRACES).exit_code == 0
    assert run_program(sandbox, FINDS_TRACES).stdout.decode().strip() == "False False [] False"
    with sandbox.lend_worker() as worker:
        # The interpreter itself, its zygote and supervisor, and bubblewrap's around them.
        wait_until(lambda: len(list_jail_processes(worker)) <= 5, 5, "the program's processes")


def test_runs_of_one_program_share_no_file(sandbox):
    source = "import os\nprint(os.listdir('.'))\nopen('count', 'a').write('x')"
    with sandbox.lend_worker() as worker, worker.load_program(source) as program:
        assert [program.run(b"", QUICK_LIMITS).stdout for _ in range(3)] == [b"[]\n"] * 3


def test_a_preloaded_prelude_equals_one_that_is_executed(sandbox):
    source = "print(gcd(4, 6), sys.getrecursionlimit(), pow(2, 3), __name__)"
    with sandbox.lend_worker() as worker:
        for text in (IMPORTS_PRELUDE, "# other\n" + IMPORTS_PRELUDE):
            with worker.load_program(source, text) as program:
                assert program.run(b"", QUICK_LIMITS).stdout == b"2 50000 8 __main__\n"
        source = "import sys\nprint(sys.getrecursionlimit(), 'gcd' in globals())"
        for text in ("", "x = 1"):
            with worker.load_program(source, text) as program:
                assert program.run(b"", QUICK_LIMITS).stdout == b"1000 False\n"


PRINTS_COUNTERS = """
import os
number = os.stat(os.open('.', os.O_TMPFILE | os.O_RDWR)).st_ino
scratch = os.stat('.')
print(os.getpid(), number, scratch.st_atime_ns == scratch.st_ctime_ns)
"""
RAISES_COUNTERS = """
import os
for _ in range(20):
    if os.fork() == 0:
        os._exit(0)
os.listdir('.')
"""


def test_no_counter_shows_what_ran_before(sandbox):
    with sandbox.lend_worker() as worker:
        outputs = []
        for source in (PRINTS_COUNTERS, RAISES_COUNTERS, PRINTS_COUNTERS):
            with worker.load_program(source) as program:
                outputs.append(program.run(b"", QUICK_LIMITS).stdout)
        if worker.tier == "namespaces":
            assert outputs[0] == outputs[2]


LOOKS_AROUND = """
import os, socket
pids = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())
files = [os.path.exists(path) for path in ('/root/.bashrc', '/etc/passwd')]
print(pids == [os.getpid()], os.getpid() < 20, *files, len(os.environ) < 12)

def is_refused(action):
    try:
        action()
    except OSError:
        return True
    return False

print(
    is_refused(lambda: open('/x', 'w')),
    is_refused(lambda: open('/python/x', 'w')),
    is_refused(socket.socket),
    is_refused(lambda: os.kill(1, 0)),
    is_refused(lambda: open('/proc/1/mem')),
    is_refused(lambda: os.listdir('/proc/1/fd')),
)
"""


def test_the_jail_shows_no_other_process_file_or_network():
    """Only the tier ``namespaces`` isolates as much."""
    with Sandbox(1) as sandbox:
        lines = run_program(sandbox, LOOKS_AROUND).stdout.decode().splitlines()
    assert lines[0] == "True True False False True"
    refused = lines[1].split()
    # A signal 0 to process 1 need not be refused.
    assert refused[:3] == ["True"] * 3 and refused[4:] == ["True"] * 2


FILLS_SCRATCH = """
try:
    with open('big', 'wb') as f:
        for _ in range(100):
            f.write(bytes(1 << 20))
except OSError as error:
    print(error.errno)
try:
    for i in range(10**5):
        open(f'{i}', 'w').close()
except OSError as error:
    print(error.errno)
"""


def test_the_scratch_folder_limits_bytes_and_files():
    limits = RunLimits(cpu_s=5.0, output_bytes=1 << 30)
    with Sandbox(1) as sandbox:
        # 28 is ENOSPC.
        assert run_program(sandbox, FILLS_SCRATCH, limits=limits).stdout.split() == [b"28", b"28"]


PRINTS_JAIL_MODULES = """
import sys
names = {names}
print(sorted(name for name in names if name in sys.modules))
"""


def test_no_module_of_the_jail_is_visible_to_a_program(sandbox):
    names = [path.stem for path in INSIDE_FOLDER.glob("*.py")]
    assert len(names) > 5
    source = PRINTS_JAIL_MODULES.format(names=names)
    assert run_program(sandbox, source).stdout == b"[]\n"
