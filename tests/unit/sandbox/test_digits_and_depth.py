"""Integers of any length, and recursion through C as deep as memory allows."""

import pytest

from tests.helpers.plain_python import WITH_UNLIMITED_STACK, run_plainly
from tests.helpers.sandbox_programs import run_program
from verl_pipeline.sandbox import RunLimits

pytestmark = pytest.mark.timeout(120)
DEEP_LIMITS = RunLimits(cpu_s=10.0, memory_bytes=1 << 30)

USES_LONG_INTEGERS = """
import ast, json, math, subprocess, sys
n = int(input())
print(n + 1, str(n)[:3], f"{n:d}"[-3:], repr(n)[:5], "%d" % n == str(n))
print(json.loads(json.dumps([n]))[0] == n, ast.literal_eval(str(n)) == n)
print(eval(str(n)) == n, math.factorial(2000))
"""
PRINTS_IN_A_CHILD = """
import subprocess, sys
print(subprocess.run([sys.executable, '-c', 'print(len(str(10**9999)))'], capture_output=True))
"""


def test_integers_have_no_limit_of_digits(sandbox, tmp_path):
    number = b"7" * 6000
    source = f"import sys\nsys.set_int_max_str_digits(0)\n{USES_LONG_INTEGERS}"
    expected, status, message = run_plainly(source, tmp_path, number)
    assert status == 0, message
    outcome = run_program(sandbox, USES_LONG_INTEGERS, number)
    assert (outcome.stdout, outcome.exit_code) == (expected, 0), outcome
    if sandbox.tier == "namespaces":  # in the other a child cannot list the standard library
        assert b"10000" in run_program(sandbox, PRINTS_IN_A_CHILD).stdout


def test_a_program_may_set_a_limit_of_digits(sandbox):
    source = "import sys\nsys.set_int_max_str_digits(5000)\nprint(10**6000)"
    assert "limit (5000 digits)" in run_program(sandbox, source).stderr


# Each recurses 45,000 calls deep; some ways take several levels of the limit a call.
RECURSIONS = {
    "lru_cache": """
from functools import lru_cache
@lru_cache(None)
def f(k): return 0 if k == 0 else 1 + f(k - 1)
print(f(N // 2))
f(N)
""",
    "map": "def f(k): return 0 if k == 0 else 1 + max(map(f, [k - 1]))\nprint(f(N // 2))",
    "map too deep": "def f(k): return 0 if k == 0 else 1 + max(map(f, [k - 1]))\nprint(f(2 * N))",
    "sort key": """
def f(k):
    if k: [1].sort(key=lambda x: f(k - 1))
    return k
print(f(N // 2))
""",
    "__lt__": """
class A:
    def __init__(self, k): self.k = k
    def __lt__(self, other):
        return bool(self.k) and bool(sorted([A(self.k - 1), A(self.k - 1)]))
print(A(N // 2) < 1)
""",
    "__getattr__": """
class A:
    def __init__(self, k): self.k = k
    def __getattr__(self, name): return 1 + A(self.k - 1).x if self.k else 0
print(A(N).x)
""",
    "__add__": """
class A:
    def __init__(self, k): self.k = k
    def __add__(self, other): return 1 + (A(self.k - 1) + 1) if self.k else 0
print(A(N // 2) + 1)
""",
    "reduce": """
from functools import reduce
def f(k): return reduce(lambda a, b: a + f(k - 1), [1, 2]) if k else 0
print(f(N // 3))
""",
    "generator": "def f(k): return 1 + sum(f(k - 1) for _ in 'a') if k else 0\nprint(f(N // 2))",
    "json": "import json\nprint(len(json.dumps(json.loads('[' * N + ']' * N))))",
    "repr": "x = []\nfor i in range(N): x = [x]\nprint(len(repr(x)))",
    "==": "x, y = [], []\nfor i in range(N): x, y = [x], [y]\nprint(x == y)",
    "hash": "x = ()\nfor i in range(N): x = (x,)\nprint(hash(x))",
    "deepcopy": """
import copy
x = []
for i in range(N // 3): x = [x]
print(len(copy.deepcopy(x)))
""",
    "pickle": "import pickle\nx = []\nfor i in range(N // 3): x = [x]\nprint(len(pickle.dumps(x)))",
    "re": "import re\nprint(re.fullmatch('(a|b)*', 'ab' * N).end())",
    "partial": """
from functools import partial
def f(k): return 1 + partial(f, k - 1)() if k else 0
print(f(N // 2))
""",
    "endless": "def f(): return max(map(lambda x: f(), [1]))\nf()",
}


@pytest.mark.parametrize("recursion", RECURSIONS.values(), ids=RECURSIONS)
def test_recursion_through_c_is_as_deep_as_with_an_unlimited_stack(sandbox, tmp_path, recursion):
    source = f"import sys\nsys.setrecursionlimit(50_000)\nN = 45_000\n{recursion}"
    expected, status, message = run_plainly(source, tmp_path, wrapper=WITH_UNLIMITED_STACK)
    outcome = run_program(sandbox, source, limits=DEEP_LIMITS)
    assert (outcome.stdout, outcome.exit_code) == (expected, status), (message, outcome)
    assert status == 0 or "RecursionError" in outcome.stderr


_CACHED = """
import sys
from functools import lru_cache
sys.setrecursionlimit(1 << 30)
def main():
    @lru_cache(None)
    def f(k): return 0 if k == 0 else 1 + f(k - 1)
    print(f(200_000))
"""
SETS_ITS_STACK = """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
main()
"""
LOWERS_ITS_STACK = """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (0x20000000, resource.RLIM_INFINITY))
main()
"""
USES_A_THREAD = """
import threading
threading.stack_size(512 << 20)
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""
USES_MANY_THREADS = """
import threading
barrier = threading.Barrier(41)
threads = [threading.Thread(target=barrier.wait) for _ in range(40)]
for thread in threads: thread.start()
barrier.wait()
print(200000)
"""
USES_THREADS_IN_A_CHILD = """
import subprocess, sys
source = "import threading\\nthreading.Thread(target=print, args=(200000,)).start()"
subprocess.run([sys.executable, '-c', source])
"""


@pytest.mark.parametrize(
    "source",
    [
        "main()",
        SETS_ITS_STACK,
        LOWERS_ITS_STACK,
        USES_A_THREAD,
        USES_MANY_THREADS,
        USES_THREADS_IN_A_CHILD,
    ],
)
def test_programs_set_up_their_stacks_as_contest_programs_do(sandbox, source):
    if source is USES_THREADS_IN_A_CHILD and sandbox.tier == "rlimits":
        pytest.skip("there a child cannot list the standard library")
    outcome = run_program(sandbox, _CACHED + source, limits=RunLimits(cpu_s=10.0))
    assert (outcome.stdout, outcome.exit_code) == (b"200000\n", 0), outcome


ENDLESS_RECURSIONS = {
    "lru_cache": """
from functools import lru_cache
@lru_cache(None)
def f(k): return f(k + 1)
f(0)
""",
    "repr": "class A:\n    def __repr__(self): return '%r' % self\nrepr(A())",
    "del": "class A:\n    def __getattr__(self, name): return A().x\nA().x",
    "plain": "def f(): return f()\nf()",
    "in a thread": """
import threading
from functools import lru_cache
threading.stack_size(256 << 20)
@lru_cache(None)
def f(k): return f(k + 1)
threading.Thread(target=f, args=(0,)).start()
""",
}


@pytest.mark.parametrize("recursion", ENDLESS_RECURSIONS.values(), ids=ENDLESS_RECURSIONS)
def test_endless_recursion_is_the_programs_own_failure(sandbox, recursion):
    source = f"import sys\nsys.setrecursionlimit(1 << 30)\n{recursion}"
    outcome = run_program(sandbox, source, limits=RunLimits(cpu_s=10.0, memory_bytes=256 << 20))
    assert outcome.exceeded_limit in ("memory", "cpu") or outcome.exit_code, outcome
    assert outcome.memory_bytes < 400 << 20
    assert run_program(sandbox, "print(1)").stdout == b"1\n"
