"""The provisional code reward, against the real program server: verdicts, limits, isolation, recovery, clean ends."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from verl_pipeline.rewards import provisional_code
from verl_pipeline.rewards.provisional_code import close, compute_score, extract_code

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[3]
ADD_ONE = "def f(x):\n    return x + 1"


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end():
    yield
    close()


def respond(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


def judge(response: str, *tests: tuple[list[Any], Any]) -> str:
    """The verdict on a response; without tests, for a function that must turn 1 into 2."""
    ground_truth = {
        "entry_point": "f",
        "tests": [{"args": args, "expected": expected} for args, expected in tests or (([1], 2),)],
    }
    result = compute_score("quickstart", response, json.dumps(ground_truth), {"index": 0}, num_turns=1)
    assert result.keys() == {"score", "acc", "verdict"}
    assert type(result["score"]) is float and type(result["acc"]) is float and type(result["verdict"]) is str
    assert result["score"] == result["acc"] == float(result["verdict"] == "accepted")
    return str(result["verdict"])


def judge_code(code: str, *tests: tuple[list[Any], Any]) -> str:
    return judge(respond(code), *tests)


def server() -> provisional_code._Server:
    """The running server, started if necessary."""
    assert judge_code(ADD_ONE) == "accepted"
    assert provisional_code._server is not None
    return provisional_code._server


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (ADD_ONE, "accepted"),
        ("def f(x):\n    return x", "wrong_answer"),
        ("def f(x):\n    pass", "wrong_answer"),
        ("def f(x):\n    raise ValueError(x)", "runtime_error"),
        ("def f(x, y):\n    return x + y", "runtime_error"),
        ("def g(x):\n    return x + 1", "runtime_error"),
        ("def f(x):\n    return f(x)", "runtime_error"),
        ("def f(x):\n    return input()", "runtime_error"),
        ("import sys\nsys.exit(0)", "runtime_error"),
        ("import os\nos._exit(0)", "runtime_error"),
        ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", "runtime_error"),
        ("import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGKILL)", "runtime_error"),
        ("def f(x)\n    return x + 1", "compile_error"),
        ("def f(x):\n    return '\0'", "compile_error"),
        ("f = " + "(" * 500 + "1" + ")" * 500, "compile_error"),
    ],
)
def test_verdicts(code, verdict):
    assert judge_code(code) == verdict


def test_every_test_must_pass():
    tests = [([1], 2), ([5], 6), ([-1], 0)]
    assert judge_code(ADD_ONE, *tests) == "accepted"
    assert judge_code("def f(x):\n    return 2", *tests) == "wrong_answer"
    assert judge_code("def f(x):\n    return {1: 2, 5: 6}[x]", *tests) == "runtime_error"


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("text ```python\na\n```", None),
        ("```python\na\n```\nor\n```py\nb\n```\nbye", "b\n"),
        ("```python\na\n```\n```python\nb\n", "a\n"),
        ("```python\na\n", None),
        ("def f(x): return x", None),
        ("", None),
        ("<think>```python\na\n```</think>```python\nb\n```", "b\n"),
        ("```python\na\n```\n</think>\nnothing", None),
        ("<think>a</think>\n```python\nb\n```</think>\n```python\nc\n```", "c\n"),
        ("```python\n```", ""),
    ],
)
def test_extraction(response, code):
    assert extract_code(response) == code


def test_the_answer_after_the_thought_counts():
    wrong = respond("def f(x):\n    return 0")
    assert judge(f"<think>{respond(ADD_ONE)}</think>{wrong}") == "wrong_answer"
    assert judge(f"<think>{wrong}</think>{respond(ADD_ONE)}") == "accepted"
    assert judge(f"{respond(ADD_ONE)}</think> done") == "no_code"


@pytest.mark.parametrize(
    ("returned", "expected", "verdict"),
    [
        ("True", 1, "wrong_answer"),
        ("1", True, "wrong_answer"),
        ("1", 1.0, "wrong_answer"),
        ("1.0", 1.0, "accepted"),
        ("[1, True]", [1, 1], "wrong_answer"),
        ("{'a': [1.0]}", {"a": [1]}, "wrong_answer"),
        ("{'a': [1], 'b': None}", {"b": None, "a": [1]}, "accepted"),
        ("(1, 2)", [1, 2], "wrong_answer"),
        ("{1: 2}", {"1": 2}, "wrong_answer"),
        ("{1}", [1], "wrong_answer"),
        ("float('nan')", None, "wrong_answer"),
        ("float('inf')", None, "wrong_answer"),
        ("type('I', (int,), {'__eq__': lambda s, o: True})(1)", 2, "wrong_answer"),
        ("__import__('enum').IntEnum('E', 'a').a", 1, "wrong_answer"),
        ("(lambda a: a.append(a) or a)([])", [], "wrong_answer"),
        ("10 ** 5000", 0, "runtime_error"),
        ("'\\ud800é'", "\ud800é", "accepted"),
        ("2 ** 100", 2**100, "accepted"),
    ],
)
def test_results_are_compared_strictly(returned, expected, verdict):
    assert judge_code(f"def f():\n    return {returned}", ([], expected)) == verdict


def test_nan_equals_nothing_not_even_itself():
    # JSON knows no NaN; Python's parser lets it through.
    assert judge_code("def f():\n    return float('nan')", ([], float("nan"))) == "wrong_answer"


def test_a_result_is_what_it_was_when_returned():
    code = "kept = []\ndef f(x):\n    kept.append(x)\n    return kept"
    assert judge_code(code, ([1], [1]), ([2], [1, 2])) == "accepted"


def test_prints_are_ignored():
    assert judge_code("def f(x):\n    print('noise' * 10 ** 6, flush=True)\n    return x + 1") == "accepted"


@pytest.mark.parametrize("code", ["while True:\n    pass", "import time\ntime.sleep(60)"])
def test_endless_programs_are_stopped(code):
    begin = time.monotonic()
    assert judge_code(code) == "time_limit"
    assert time.monotonic() - begin < 30


def test_a_program_cannot_ignore_the_cpu_limit():
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass"
    assert judge_code(code) == "time_limit"


def test_memory_and_output_are_bounded():
    assert judge_code("def f(x):\n    return len(bytearray(10 ** 9))") == "runtime_error"
    assert judge_code("def f(x):\n    return 'a' * 2_000_000") == "runtime_error"
    flood = "import os\ndef f(x):\n    while True:\n        os.write(3, b'x' * 65536)"
    assert judge_code(flood) == "runtime_error"


def test_no_files_can_be_filled():
    code = "def f(x):\n    with open('a', 'w') as file:\n        file.write('a' * 100)\n    return x + 1"
    assert judge_code(code) == "runtime_error"


def test_a_fork_bomb_starts_nothing():
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    pid = server().process.pid
    assert judge_code(bomb) == "time_limit"
    assert children(pid) == []
    assert judge_code("import os\ndef f(x):\n    return x + 1 + os.fork()") == "runtime_error"
    assert judge_code("import threading\nthreading.Thread(target=print).start()") == "runtime_error"


def test_results_cannot_be_forged_by_writing_to_the_pipe():
    forged = json.dumps({"status": "finished", "results": [{"value": 2}]})
    code = f"import os\nos.write(3, b{forged!r})\nos._exit(0)"
    assert judge_code(code) == "runtime_error"


def test_expected_values_do_not_reach_the_program():
    search = """
import sys
def f(x):
    frame, text = sys._getframe(1), ''
    while frame:
        text += repr(frame.f_locals)
        frame = frame.f_back
    begin = text.find('needle' + '-')
    return text[begin:begin + 9] if begin >= 0 else None
"""
    assert judge_code(search, (["needle-42"], "needle-42")) == "accepted"  # it finds what is there
    # Neither from the tests of this program nor, above, from what the one before it was given and returned.
    assert judge_code(search, ([1], "needle-42")) == "wrong_answer"


def test_the_environment_is_not_visible(monkeypatch):
    close()
    monkeypatch.setenv("VERL_PIPELINE_TEST_SECRET", "hush")
    code = """
import os
def f():
    try:
        initial = open('/proc/self/environ').read()
    except PermissionError:
        initial = ''
    return [dict(os.environ), 'hush' in initial, os.listdir('.'), sorted(os.listdir('/proc/self/fd'))[:4]]
"""
    # The fifth descriptor is the listing's own.
    assert judge_code(code, ([], [{}, False, [], ["0", "1", "2", "3"]])) == "accepted"


def test_programs_share_no_state():
    leave = "import math, builtins\nmath.pi = builtins.left = 3\nopen('left', 'w')\ndef f(x):\n    return x + 1"
    look = "import math, os\ndef f():\n    return [math.pi == 3, 'left' in dir(__builtins__), os.listdir('.')]"
    pid = server().process.pid
    assert judge_code(leave) == "accepted"
    assert judge_code(look, ([], [False, False, []])) == "accepted"
    assert server().process.pid == pid


def test_hashes_and_random_numbers_do_not_vary():
    script = "print(hash('verl'))"
    output = subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True)
    expected = [int(output.stdout), random.Random(0).random()]
    code = "import random\ndef f():\n    return [hash('verl'), random.random()]"
    for _ in range(2):
        assert judge_code(code, ([], expected)) == "accepted"
        close()


def test_usual_modules_can_be_imported():
    names = "math re collections itertools functools heapq bisect string statistics datetime json random decimal typing"
    assert judge_code(f"import {', '.join(names.split())}\n{ADD_ONE}") == "accepted"
    parse = "import datetime\ndef f(s):\n    return datetime.datetime.strptime(s, '%Y-%m-%d').day"
    assert judge_code(parse, (["2024-02-29"], 29)) == "accepted"


def test_a_program_that_attacks_its_server():
    # A root server runs programs as another user, who may not signal it. Otherwise the server dies and is replaced.
    code = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True:\n    pass"
    assert judge_code(code) == ("runtime_error" if os.geteuid() == 0 else "infrastructure")
    assert judge_code(ADD_ONE) == "accepted"


def test_a_dead_server_is_infrastructure_and_is_replaced(caplog):
    old = server()
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge_code, "while True:\n    pass")
        wait_until(lambda: children(old.process.pid))
        (program,) = children(old.process.pid)
        old.process.kill()
        assert verdict.result(30) == "infrastructure"
    assert "could not be judged" in caplog.text
    wait_until(lambda: not is_alive(program))
    assert not Path(old.work_dir).exists()
    assert server().process.pid != old.process.pid


def test_a_server_that_cannot_start_is_infrastructure(monkeypatch):
    close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent/python")
        assert judge_code(ADD_ONE) == "infrastructure"
        patch.setattr(sys, "executable", "/bin/false")
        assert judge_code(ADD_ONE) == "infrastructure"
    assert judge_code(ADD_ONE) == "accepted"


def test_a_reply_that_is_no_reply_is_infrastructure(monkeypatch, tmp_path):
    close()
    babbler = tmp_path / "babbler.py"
    babbler.write_text("import socket\ns = socket.socket(fileno=0)\ns.recv(1)\ns.sendall(b'\\0\\0\\0\\4oops')\n")
    with monkeypatch.context() as patch:
        patch.setattr(provisional_code, "_SERVER", babbler)
        assert judge_code(ADD_ONE) == "infrastructure"
    assert judge_code(ADD_ONE) == "accepted"


def test_threads_share_one_server():
    close()

    def one(i: int) -> tuple[str, str]:
        right = judge_code(f"def f(x):\n    return x + {i}", ([1], 1 + i))
        wrong = judge_code(f"def f(x):\n    return x + {i}", ([1], 2 + i))
        return right, wrong

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(one, range(24)))
    assert set(verdicts) == {("accepted", "wrong_answer")}
    assert children(server().process.pid) == []


def test_the_server_outlives_the_thread_that_started_it():
    close()
    pids = []
    thread = threading.Thread(target=lambda: pids.append(server().process.pid))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert server().process.pid == pids[0]


def test_close_leaves_nothing():
    running = server()
    close()
    assert not is_alive(running.process.pid)
    assert not Path(running.work_dir).exists()
    close()


def run_script(script: str) -> subprocess.CompletedProcess:
    helper = "import sys; sys.path[:0] = [{!r}, {!r}]\nfrom test_provisional_code import *\n"
    prologue = helper.format(str(ROOT), str(Path(__file__).parent))
    return subprocess.run([sys.executable, "-c", prologue + script], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"])
def test_the_server_ends_with_its_process(end):
    # The forked process keeps every inherited file open: the end of the parent must be seen all the same.
    script = f"""
running = server()
print(running.process.pid, running.work_dir, flush=True)
if os.fork() == 0:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    time.sleep(20)
    os._exit(0)
{end}
"""
    pid, work_dir = run_script(script).stdout.split()
    wait_until(lambda: not is_alive(int(pid)) and not Path(work_dir).exists())


def test_a_program_ends_with_the_process_that_asked():
    script = """
running = server()
threading.Thread(target=judge_code, args=("while True:\\n    pass",), daemon=True).start()
wait_until(lambda: children(running.process.pid))
print(running.process.pid, *children(running.process.pid), running.work_dir, flush=True)
os.kill(os.getpid(), 9)
"""
    begin = time.monotonic()
    pid, program, work_dir = run_script(script).stdout.split()
    wait_until(lambda: not is_alive(int(pid)) and not is_alive(int(program)) and not Path(work_dir).exists())
    assert time.monotonic() - begin < 20


def test_a_forked_process_starts_its_own_server():
    script = """
parent = server().process.pid
if os.fork() == 0:
    child = server().process.pid
    close()
    os._exit(0 if child != parent else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert server().process.pid == parent
print("done")
"""
    result = run_script(script)
    assert result.stdout == "done\n", result.stderr


@pytest.mark.parametrize("ground_truth", ["", "[]", "{}", '{"entry_point": "f", "tests": [{"args": [1]}]}'])
def test_a_malformed_ground_truth_is_an_error(ground_truth):
    with pytest.raises(ValueError, match="ground_truth lacks"):
        compute_score("quickstart", respond(ADD_ONE), ground_truth)


def test_interrupts_from_the_terminal_do_not_reach_the_server():
    assert os.getpgid(server().process.pid) != os.getpgid(0)
