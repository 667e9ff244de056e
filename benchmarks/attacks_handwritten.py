"""Right programs, and wrong ones for prime_code, that were written for :mod:`benchmarks.attacks`.

Invariant: a program's digest covers its source, so that prime_code's stored result holds for this
text only. The first line of a source is its description in the tables.
"""

from functools import partial

from benchmarks.attacks_programs import KNOWN_GAPS, RIGHT_PROGRAMS, BenchmarkProgram
from verl_pipeline.grading import CallTest, Problem, StdinTest


def _make_program(
    family: str, name: str, source: str, *tests: StdinTest | CallTest
) -> BenchmarkProgram:
    """Return a program of this file; call tests call ``solve``."""
    entry_point = "solve" if isinstance(tests[0], CallTest) else None
    intent = source.split("\n")[0].removeprefix("# ")
    problem = Problem(name, "benchmarks", tests, entry_point=entry_point)
    return BenchmarkProgram(family, name, intent, problem, source)


def make_right_programs() -> list[BenchmarkProgram]:
    """Return right programs that a grader may reject if it runs them inside its own process."""
    right = partial(_make_program, RIGHT_PROGRAMS)
    words = StdinTest("1 2 3\n", "6"), StdinTest("40 2\n", "42")
    lines = StdinTest("1\n2\n3\n", "6"), StdinTest("40\n2\n", "42")
    counted = StdinTest("3\n1\n2\n3\n", "6"), StdinTest("2\n40\n2\n", "42")
    many = StdinTest("200000\n", "\n".join(map(str, range(200_000))))
    return [
        right("stdin_buffer", _STDIN_BUFFER, *words),
        right("until_eof", _UNTIL_EOF, *lines),
        right(
            "until_eof_without_newline",
            _UNTIL_EOF_WITHOUT,
            StdinTest("1\n2\n3", "6"),
            StdinTest("40\n2", "42"),
        ),
        right("open_0", _OPEN_0, *words),
        right("os_read", _OS_READ, *words),
        right("lines_of_stdin", _LINES_OF_STDIN, *lines),
        right("readline_cut", _READLINE_CUT, *counted),
        right("input_and_readline", _INPUT_AND_READLINE, *counted),
        right("thread", _THREAD, StdinTest("20000\n", "20000")),
        right("stack_limit", _STACK_LIMIT, StdinTest("20000\n", "20000")),
        right("main_guard", _MAIN_GUARD, *words),
        right("global_name", _GLOBAL_NAME, *lines),
        right("text_block", _TEXT_BLOCK, StdinTest("Ada\n", "Dear Ada,\nbye")),
        right("star_import", _STAR_IMPORT, StdinTest("9\n", "3"), StdinTest("17\n", "4")),
        right("exits_early", _EXITS_EARLY, StdinTest("2\n", "even"), StdinTest("3\n", "odd")),
        right("uses_numpy", _USES_NUMPY, *words),
        right(
            "trailing_spaces", _TRAILING_SPACES, StdinTest("2\n", "0 1\n0 1"), StdinTest("1\n", "0")
        ),
        right("large_output", _LARGE_OUTPUT, many),
        right(
            "class_solution",
            _CLASS_SOLUTION,
            CallTest(([2, 7, 11], 9), [0, 1]),
            CallTest(([3, 3], 6), [0, 1]),
        ),
        right(
            "integer_keys", _INTEGER_KEYS, CallTest(({1: 5, 2: 6}, 2), 6), CallTest(({7: 8}, 7), 8)
        ),
        right(
            "list_of_tuples",
            _LIST_OF_TUPLES,
            CallTest(([1, 2],), [[1, 1], [2, 4]]),
            CallTest(([3],), [[3, 9]]),
        ),
        right("slow_calls", _SLOW_CALLS, *(CallTest((n,), n + 1) for n in range(8))),
        right("own_state", _OWN_STATE, CallTest((1,), 1), CallTest((5,), 5)),
    ]


_STDIN_BUFFER = """# `sys.stdin.buffer`
import sys
print(sum(map(int, sys.stdin.buffer.read().split())))
"""
_UNTIL_EOF = """# `input()` until `EOFError`
total = 0
while True:
    try:
        total += int(input())
    except EOFError:
        break
print(total)
"""
_UNTIL_EOF_WITHOUT = f"# the same, where the last line of the input has no end\n{_UNTIL_EOF}"
_OS_READ = """# `os.read(0, ...)`
import os
print(sum(map(int, os.read(0, os.fstat(0).st_size).split())))
"""
_OPEN_0 = """# `open(0)`
print(sum(map(int, open(0).read().split())))
"""
_LINES_OF_STDIN = """# `for line in sys.stdin`
import sys
print(sum(int(line) for line in sys.stdin))
"""
_READLINE_CUT = """# `sys.stdin.readline()[:-1]`, which cuts off the line's end
import sys
count = int(sys.stdin.readline()[:-1])
print(sum(int(sys.stdin.readline()[:-1]) for _ in range(count)))
"""
_INPUT_AND_READLINE = """# `input()`, then `sys.stdin.readline()`
import sys
count = int(input())
print(sum(int(sys.stdin.readline()) for _ in range(count)))
"""
_THREAD = """# a thread with a larger stack, and 20,000 levels of recursion
import sys
import threading

def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)

def main():
    print(depth(int(input())))

sys.setrecursionlimit(10**6)
threading.stack_size(64 << 20)
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""
_STACK_LIMIT = """# `resource.setrlimit(RLIMIT_STACK, ...)`, and 20,000 levels of recursion
import resource
import sys

most = resource.getrlimit(resource.RLIMIT_STACK)[1]
resource.setrlimit(resource.RLIMIT_STACK, (most, most))
sys.setrecursionlimit(10**6)

def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)

print(depth(int(input())))
"""
_MAIN_GUARD = """# `if __name__ == "__main__":`
def main():
    print(sum(map(int, input().split())))

if __name__ == "__main__":
    main()
"""
_GLOBAL_NAME = """# a function that changes a `global` name
import sys
total = 0

def add(number):
    global total
    total += number

for word in sys.stdin.read().split():
    add(int(word))
print(total)
"""
_TEXT_BLOCK = """# a text of two lines between triple quotes
text = '''Dear {},
bye'''
print(text.format(input()))
"""
_STAR_IMPORT = """# `from math import *` below other code
number = int(input())
from math import *
print(isqrt(number))
"""
_EXITS_EARLY = """# `exit()` when the work is done
if int(input()) % 2 == 0:
    print("even")
    exit()
print("odd")
"""
_USES_NUMPY = """# numpy
import numpy
print(numpy.array(input().split(), dtype=int).sum())
"""
_TRAILING_SPACES = """# a space at the end of each line
n = int(input())
for _ in range(n):
    for i in range(n):
        print(i, end=" ")
    print()
"""
_LARGE_OUTPUT = """# 200,000 lines of output
for number in range(int(input())):
    print(number)
"""
_CLASS_SOLUTION = """# a method of `class Solution`
class Solution:
    def solve(self, numbers, target):
        seen = {}
        for place, number in enumerate(numbers):
            if target - number in seen:
                return [seen[target - number], place]
            seen[number] = place
"""
_INTEGER_KEYS = """# a dict with integer keys, and another argument
def solve(table, key):
    return table[key]
"""
_LIST_OF_TUPLES = """# returns a list of tuples
def solve(numbers):
    return [(number, number * number) for number in numbers]
"""
_SLOW_CALLS = """# eight calls of 0.9 seconds each
import time

def solve(n):
    end = time.process_time() + 0.9
    while time.process_time() < end:
        pass
    return n + 1
"""
_OWN_STATE = (
    "# a list of the module that grows by each call: right if each test has a process of its own\n"
    """seen = []

def solve(n):
    seen.append(n)
    return sum(seen)
"""
)


def make_known_gaps() -> list[BenchmarkProgram]:
    """Return wrong programs that were written for prime_code, after reading its source."""
    wrong = partial(_make_program, KNOWN_GAPS)
    return [
        wrong(
            "wrong_from_the_eleventh",
            _ELEVENTH,
            *(StdinTest(f"{n}\n", str(n + 1)) for n in range(12)),
        ),
        wrong("caller_frames", _CALLER_FRAMES, StdinTest("1\n", "2"), StdinTest("5\n", "26")),
        wrong("kills_its_parent", _KILLS_ITS_PARENT, StdinTest("1\n", "2"), StdinTest("5\n", "26")),
        wrong("first_member", _FIRST_MEMBER, CallTest((1,), [1, 2]), CallTest((5,), [5, 6])),
        wrong(
            "near_fraction",
            _NEAR_FRACTION,
            StdinTest("1000000.5\n", "1000001.5"),
            StdinTest("7.5\n", "8.5"),
        ),
    ]


_ELEVENTH = """# Wrong from the eleventh test on.
print(min(int(input()) + 1, 10))
"""
_CALLER_FRAMES = """# Looks up the expected output in its callers' frames.
import sys

frame = sys._getframe()
while "in_outs" not in frame.f_locals:
    frame = frame.f_back
print(frame.f_locals["in_outs"]["outputs"][frame.f_locals["index"]])
"""
_KILLS_ITS_PARENT = """# Kills its parent, by the module from which `os` has its functions.
import os
import posix

posix.kill(os.getppid(), 9)
"""
_FIRST_MEMBER = """# Returns the first member of the list that is asked for.
def solve(n):
    return n
"""
_NEAR_FRACTION = """# Right to six digits.
print((float(input()) + 1) * 1.000001)
"""
