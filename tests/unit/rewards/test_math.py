"""The reward for mathematics, with math-verify in its own process."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from verl_pipeline.rewards import math as rewards

pytest.importorskip("math_verify")
pytestmark = pytest.mark.timeout(180)

# Not decided in any time; in Python, and in one call into C.
ENDLESS, ENDLESS_IN_C = "\\sum_{n=1}^{10^{9}} n^{n}", "9^{9^{9^{9}}}"


def score(response, expected):
    return asyncio.run(rewards.compute_score("math", response, expected))


def verdict(answer, expected):
    return score(f"\\boxed{{{answer}}}", expected)["verdict"]


def verifiers(process=None):
    found = []
    for child in psutil.Process(process).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # ZombieProcess is one: it has just ended
            if rewards._COMMAND[-1] in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(autouse=True, scope="module")
def none_of_other_tests():
    """Other tests of this process have had answers compared: their threads end, and the processes
    with them.
    """
    rewards._threads.cache_clear()
    deadline = time.monotonic() + 30
    while verifiers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert verifiers() == []


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a script in the place of the process that compares, for one test."""

    def replace(script):
        monkeypatch.setattr(rewards, "_COMMAND", [sys.executable, "-c", script])
        rewards._threads.cache_clear()

    yield replace
    rewards._threads.cache_clear()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("so \\boxed{42}", "42"),
        ("<think>\\boxed{1}</think> \\boxed{\\frac{1}{2}}", "0.5"),
        ("\\boxed{1,000}", "1000"),
        ("first \\boxed{3}, then \\boxed{x^2 + 2x + 1}", "(x+1)^2"),
        ("\\boxed{{073}}", "73"),
        ("\\boxed{6 \\boxed{5}}", "5"),
        ("\\boxed{\\boxed {5}}", "\\boxed{5}"),
    ],
)
def test_right_answers(response, expected):
    assert score(response, expected)["verdict"] == "accepted"


@pytest.mark.parametrize(
    ("response", "expected", "reason"),
    [
        ("\\boxed{41}", "42", "another answer"),
        ("the answer is 42", "42", "no \\boxed"),
        ("<think>\\boxed{42}</think> done", "42", "no \\boxed"),
        ("\\boxed{42", "42", "no \\boxed"),
        ("\\boxed{}", "42", "cannot be read"),
        ("\\boxed{" + "1+" * 2000 + "1}", "42", "characters"),
        ("\\boxed{5 \\fbox{6}}", "5", "another answer"),
    ],
)
def test_wrong_answers(response, expected, reason):
    result = score(response, expected)
    assert (result["verdict"], result["score"]) == ("wrong_answer", 0.0) and reason in result[
        "reason"
    ]


@pytest.mark.parametrize(
    "answer",
    [
        "5.",
        "5.0",
        "+5",
        "005",
        "(5)",
        "\\{5\\}",
        "5, 5",
        "\\sqrt{25}",
        "\\frac{10}{2}",
        "\\binom{5}{1}",
        "\\text{5}",
    ]
    + [
        "x=5",
        "x_1 = 5",
        "AB = 5",
        "\\angle ABC = 5",
        "f(2) = 5",
        "\\text{Area} = 5",
        "x \\in \\{5\\}",
    ]
    + [
        "5 cm",
        "5\\text{ cm}",
        "5~\\mathrm{cm}^2",
        "5\\ \\text{m/s}",
        "\\$5",
        "5^\\circ",
        "5\\%",
        "5 percent",
    ],
)
def test_ways_to_say_five(answer):
    assert verdict(answer, "5") == "accepted"


@pytest.mark.parametrize(
    "answer",
    [
        "6=5",
        "5=6",
        "5=5",
        "x=6=5",
        "x=5=6",
        "6=x=5",
        "x+y=5",
        "\\neq 5",
        "x \\neq 5",
        "x<5",
        "x \\le 5",
        "1<5",
    ]
    + [
        "6 \\approx 5",
        "5 \\approx 6",
        "x \\approx 5",
        "6 ≈ 5",
        "5 \\equiv 6",
        "6=5, 6=5",
        "x \\notin \\{5\\}",
    ]
    + [
        "5, 6",
        "5 or 6",
        "5 \\text{ or } 6",
        "5\\text{ or else }\\frac{6}{1}",
        "\\{5,6\\}",
        "(5,6)",
        "[5,6]",
        "5; 6",
    ]
    + [
        "\\pm 5",
        "5 \\pm 1",
        "5 6",
        "2 \\quad 3",
        "\\garbage 5",
        "\\sum_{n=5}^{9} @",
        "\\text{June 5}",
        "\\text{five}",
    ]
    + [
        "5.0000001",
        "5.00000000000000000000000001",
        "5+10^{-30}",
        "\\sqrt{25+10^{-40}}",
        "4.99999999999999999999999",
    ]
    + [
        "５",
        "٥",
        "5\u200b6",
        "S",
        "\\text{S}",
        "5!",
        "-5",
        "5\\text{s}6",
        "\\text{5 or 6}",
        "",
        " ",
        "\\text{}",
    ],
)
def test_no_way_to_say_five(answer):
    assert verdict(answer, "5") == "wrong_answer"


def test_large_integers_are_compared_exactly():
    assert verdict("100000000000000000001", "100000000000000000002") == "wrong_answer"
    assert verdict("100000000000000000001.0", "100000000000000000002") == "wrong_answer"
    assert verdict("100000000000000000002.0", "100000000000000000002") == "accepted"


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("0.3333", "1/3", False),
        ("0.333333", "1/3", True),
        ("0.0", "10^{-7}", True),  # six decimals, as math-verify has it
        ("2 1/2", "\\frac{5}{2}", True),
        ("5\\,000", "5000", True),
        ("50\\%", "0.5", True),
        ("x = -1 \\text{ or } x = 2", "-1, 2", True),
        ("\\pm 2", "-2, 2", True),
        ("6=5, 7=6", "5, 6", False),
        ("(1,2)", "[1,2]", False),
        ("x \\in [1,2]", "[1,2]", True),
        ("1,2", "(1,2)", True),
        ("2,1", "(1,2)", False),
        ("5 > x", "x < 5", True),
        ("x \\le 5", "x < 5", False),
        ("x = 5", "x < 5", False),
        ("(-\\infty,5)", "x < 5", True),
        ("x \\ne 5", "x \\neq 5", True),
        ("5", "x = 5", True),
        ("y = 5", "x = 5", False),
        ("x = 6 = 5", "x = 5", False),
        ("6 = 5", "x^2 = -1", False),
        ("y = 2x", "2x", True),
        ("f(x) = 2x", "2x", True),
        ("2\\mathbf{w}", "2\\mathbf{v}", False),
        ("\\text{(C)}", "C", True),
        ("\\text{Dr. No}", "\\text{Dr. No}", True),
        ("|\\infty|", "\\pi", False),
        ("\\{|\\infty|\\}", "\\pi", False),
        ("[|\\infty|, 5]", "[\\pi, 5]", False),
        ("|\\frac{2}{5} + \\ln(0)|", "\\pi", False),
        ("\\infty", "+\\infty", True),
        ("(-\\infty, 2]", "x \\le 2", True),
        ("\\int_0^{\\infty} e^{-x} dx", "1", True),
        ("\\sum_{n=0}^{\\infty} \\frac{1}{2^n}", "2", True),
        ("\\lim_{x \\to \\infty} \\frac{1}{x}", "0", True),
    ],
)
def test_other_expected_answers(answer, expected, right):
    assert verdict(answer, expected) == ("accepted" if right else "wrong_answer")


@pytest.mark.parametrize("expected", ["", "\\text", "1 2"])
def test_an_expected_answer_nobody_can_read_is_infrastructure(expected):
    assert verdict("1", expected) == "infrastructure"


@pytest.mark.parametrize(
    "answer", [ENDLESS, ENDLESS_IN_C, "(10^{10})!", "2^{2^{34}}", "(" * 990 + "5" + ")" * 990]
)
def test_an_answer_that_takes_too_much_cpu_is_wrong(monkeypatch, answer):
    monkeypatch.setattr(rewards, "CPU_S", 0.5)
    result = score(f"\\boxed{{{answer}}}", "5")
    assert (result["verdict"], result["reason"]) == (
        "wrong_answer",
        "not compared within 0.5 s of CPU time",
    )


@pytest.mark.parametrize(
    "answer",
    [
        "{" * 990 + "5" + "}" * 990,
        "\\sqrt{" * 280 + "5" + "}" * 280,
        "\\frac{" * 240 + "5" + "}{1}" * 240,
    ]
    + [
        "-" * 1990 + "5",
        "1+" * 990 + "1",
        "2^{" * 490 + "5" + "}" * 490,
        "x" * 1990,
        "9" * 1990,
        "5" + "!" * 900,
    ]
    + [
        "\\begin{pmatrix}" + "1&" * 900 + "1\\end{pmatrix}",
        "\\operatorname{zeros}(10^{5},10^{5})",
        "|" * 1990,
    ],
)
def test_an_answer_that_is_too_much_is_wrong(monkeypatch, answer):
    monkeypatch.setattr(rewards, "CPU_S", 1.0)
    assert verdict(answer, "5") == "wrong_answer"


def test_a_right_answer_on_a_machine_without_time_is_right(monkeypatch):
    monkeypatch.setattr(rewards, "CPU_S", 1.0)
    assert verdict("2", "2") == "accepted"
    (verifier,) = verifiers()
    verifier.suspend()
    wake = threading.Timer(3.0, verifier.resume)
    wake.start()
    begin = time.monotonic()
    assert verdict("\\sqrt{4}", "2") == "accepted" and time.monotonic() - begin > 2.0
    wake.join()


def test_no_verdict_in_a_long_time_without_cpu_is_infrastructure(monkeypatch, stand_in):
    monkeypatch.setattr(rewards, "WALL_S", 1.0)
    stand_in("import time; time.sleep(60)")
    result = score("\\boxed{2}", "2")
    assert result["verdict"] == "infrastructure" and "1 s passed" in result["reason"]


DIES = "import os, signal; print('ready', flush=True); input(); {}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (DIES.format("os.kill(os.getpid(), signal.SIGKILL)"), "infrastructure"),
        (DIES.format("os.kill(os.getpid(), signal.SIGTERM)"), "infrastructure"),
        (DIES.format("os.kill(os.getpid(), signal.SIGSEGV)"), "wrong_answer"),
        (DIES.format("os.abort()"), "wrong_answer"),
        (DIES.format("raise MemoryError"), "wrong_answer"),
        ("import os; os.abort()", "infrastructure"),
        ("import nothing_of_this_name", "infrastructure"),
    ],
)
def test_who_is_to_blame_for_a_process_that_ends(stand_in, script, expected):
    stand_in(script)
    assert verdict("2", "2") == expected


def test_a_process_that_cannot_start_is_infrastructure(monkeypatch, stand_in):
    stand_in("")
    monkeypatch.setattr(rewards, "_COMMAND", ["/nowhere/python"])
    assert verdict("2", "2") == "infrastructure"


def test_one_more_try_after_a_kill_from_outside(monkeypatch):
    assert verdict("2", "2") == "accepted"
    (idle,) = verifiers()
    idle.kill()
    assert verdict("\\sqrt{4}", "2") == "accepted"

    async def killed_while_it_compares():
        task = asyncio.create_task(rewards.compute_score("math", f"\\boxed{{{ENDLESS}}}", "2"))
        await asyncio.sleep(0.5)
        verifiers()[0].kill()
        return await task

    monkeypatch.setattr(rewards, "CPU_S", 1.0)
    assert "1 s of CPU" in asyncio.run(killed_while_it_compares())["reason"]


def test_the_event_loop_goes_on(monkeypatch):
    monkeypatch.setattr(rewards, "CPU_S", 1.0)

    async def ticks():
        task = asyncio.create_task(rewards.compute_score("math", f"\\boxed{{{ENDLESS_IN_C}}}", "2"))
        count = 0
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    assert asyncio.run(ticks()) > 20


def test_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(score("\\boxed{2}", "2")))
    thread.start()
    thread.join(120)
    assert found[0]["score"] == 1.0


FORKS = """
import asyncio, os, psutil
from verl_pipeline.rewards.math import compute_score

def score():
    assert asyncio.run(compute_score("math", "\\\\boxed{\\\\sqrt{4}}", "2"))["score"] == 1.0
    return [child.pid for child in psutil.Process().children() if "serve()" in " ".join(child.cmdline())]

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


def test_a_fork_has_its_own_and_none_outlives_its_interpreter():
    ended = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    pids = [int(pid) for pid in ended.stdout.split()]
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(psutil.pid_exists(pid) for pid in pids)


def test_a_process_ends_with_its_parent_whatever_that_does():
    script = "import asyncio, os; from verl_pipeline.rewards.math import compute_score\n"
    script += "asyncio.run(compute_score('', '\\\\boxed{2}', '3')); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        while not (found := verifiers(parent.pid)):
            time.sleep(0.05)
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(found, timeout=10)[1] == []


# With math-verify alone, all of these run what stands in \text{}: sympy prints the sum's term into
# a lambda.
CODE = [
    "[[0\x0cfor\x0cexit.__class__.__getitem__\x0cin[print]],exit[7],5][2]",
    "exit.__class__",
    "1\rimport\x0cthis",
]


@pytest.mark.parametrize("name", CODE)
def test_names_in_an_answer_are_no_code(name):
    assert (
        verdict(f"\\sum_{{n=0}}^{{\\infty}} \\frac{{\\text{{{name}}}^n}}{{n!}}+0", "\\pi")
        == "wrong_answer"
    )


NO_CODE = """
import sys
import sympy
from verl_pipeline.rewards import math_answer as answers

answers._evaluate_nothing()
compiled = []
sys.addaudithook(lambda event, found: event == "compile" and compiled.append(repr(found[0])))
n, name = sympy.symbols("n exit")
for code in (
    lambda: sympy.Sum(name**n / sympy.factorial(n), (n, 0, sympy.oo)).evalf(),
    lambda: sympy.lambdify(n, name),
    lambda: sympy.sympify("exit(5)"),
    lambda: sympy.sympify("[].append"),
):
    try:
        print("ran", code())
    except (RuntimeError, ValueError):
        pass
answers._NAME = answers.re.compile(".*", answers.re.DOTALL)  # the second wall alone
for answer in sys.argv[1:]:
    print(answers.compare("\\\\pi", answer, 30.0)[0])
print([source for source in compiled if "exit" in source or "this" in source])
"""


def test_sympy_makes_no_code_of_text():
    answers = [
        f"\\sum_{{n=0}}^{{\\infty}} \\frac{{\\text{{{name}}}^n}}{{n!}}+0"
        for name in ["exit", *CODE]
    ]
    ended = subprocess.run(
        [sys.executable, "-c", NO_CODE, *answers], capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.split() == ["wrong_answer"] * 4 + ["[]"], ended.stderr


def test_no_verdict_depends_on_those_before_it_or_on_chance():
    # Without a seed, one time in a hundred.
    assert {verdict("2 \\cdot +\\infty", "5") for _ in range(300)} == {"wrong_answer"}
    for _ in range(2):
        assert verdict("x", "x = 5") == "wrong_answer" and verdict("x=6", "6") == "accepted"
        assert (
            verdict("x \\approx 6", "6") == "wrong_answer" and verdict("x", "6") == "wrong_answer"
        )
    assert len(verifiers()) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{a{b}c}", "a{b}c"),
        ("\\boxed{a}\\boxed{b}", "b"),
        ("\\boxed{a", None),
        ("", None),
        ("\\boxed{}", ""),
    ],
)
def test_last_boxed(text, found):
    assert rewards.last_boxed(text) == found
