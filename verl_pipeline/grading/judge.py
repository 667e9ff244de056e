"""Grades a program: runs its tests in the sandbox, one after another, and compares outside.

Invariants:
* No expected output enters a process of the program's; asserts run in a process and jail of their
  own.
* Grading stops at the first test that is not accepted; there is no partial credit.
* A failure of the sandbox is graded once more on another worker, then ``infrastructure``. Nothing a
  program does inside its jail leads there.
"""

import ast
import functools
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

from verl_pipeline.grading.compare import text_matches, value_matches
from verl_pipeline.grading.extract import last_program
from verl_pipeline.grading.problem import AssertTest, CallTest, Problem, StdinTest, Test
from verl_pipeline.grading.verdict import Result, Verdict
from verl_pipeline.sandbox import Limits, Outcome, RemoteSandbox, Sandbox, SandboxError
from verl_pipeline.sandbox.channels import socket_pair
from verl_pipeline.sandbox.inside import values
from verl_pipeline.sandbox.inside.exits import (
    NO_FUNCTION,
    NO_SYNTAX,
    NO_VALUE,
    PASSED,
    PROGRAM_ENDED,
    PROGRAM_RAISED,
    TESTS_LACK_A_MODULE,
)
from verl_pipeline.sandbox.remote import RemoteProgram, RemoteWorker
from verl_pipeline.sandbox.worker import Program, Worker

TRIES = 2
# CPU seconds for all call tests together, before they are run one by one.
AT_ONCE_S = 1.0
# Characters.
MOST_REASON = 300
_EXCEEDED = {
    "cpu": (Verdict.TIME_LIMIT, "over its limit of CPU time"),
    "wall": (Verdict.TIME_LIMIT, "slept too long"),
    "memory": (Verdict.MEMORY_LIMIT, "over its limit of memory"),
    "output": (Verdict.OUTPUT_LIMIT, "over its limit of output"),
}
_EXITS = {
    NO_SYNTAX: Verdict.COMPILE_ERROR,
    NO_FUNCTION: Verdict.RUNTIME_ERROR,
    NO_VALUE: Verdict.WRONG_ANSWER,
}
_OK = (Verdict.ACCEPTED, "")

Judged = tuple[Verdict, str]
AnySandbox = Sandbox | RemoteSandbox


def grade_response(problem: Problem, response: str, sandbox: AnySandbox) -> Result:
    """Grade what :func:`~verl_pipeline.grading.extract.last_program` finds in a model's response."""
    program = last_program(response)
    if program is None:
        return Result(
            Verdict.NO_CODE,
            "no complete fenced block after the last </think>",
            total=len(problem.tests),
        )
    return grade(problem, program, sandbox)


def grade(problem: Problem, program: str, sandbox: AnySandbox) -> Result:
    """Grade a program on all tests of ``problem``; never raises for anything the program does."""
    failure: Exception | None = None
    for _ in range(TRIES):
        try:
            with sandbox.worker() as worker:
                return _Grading(problem, program, worker).result()
        except (SandboxError, OSError) as error:
            failure = error
    return Result(Verdict.INFRASTRUCTURE, str(failure), total=len(problem.tests), tier=sandbox.tier)


class _Grading:
    """One program on one worker; sums up what its runs took."""

    def __init__(self, problem: Problem, program: str, worker: Worker | RemoteWorker):
        self.problem, self.program, self.worker = problem, program, worker
        self.limits = Limits(cpu_s=problem.time_s, memory_bytes=problem.memory_bytes)
        self.sums = Result(Verdict.ACCEPTED, total=len(problem.tests), tier=worker.tier)

    def result(self) -> Result:
        with self.worker.program(self.program, self.problem.prelude) as program:
            if self._all_right_at_once(program):
                return replace(self.sums, passed=len(self.problem.tests))
            for index, test in enumerate(self.problem.tests):
                verdict, reason = self._judge(program, test)
                if verdict is not Verdict.ACCEPTED:
                    return replace(
                        self.sums, verdict=verdict, reason=_readable(reason), failed_test=index
                    )
                self.sums = replace(self.sums, passed=index + 1)
        return self.sums

    def _all_right_at_once(self, program: Program | RemoteProgram) -> bool:
        """Whether all call tests pass in one process: most programs are quick, and a process is
        not.

        It calls nothing wrong: if it is not so, all of them are run one by one.
        """
        tests = [test for test in self.problem.tests if isinstance(test, CallTest)]
        if len(tests) < 2:
            return False
        limits = replace(self.limits, cpu_s=min(AT_ONCE_S, self.limits.cpu_s), pauses_s=0.0)
        outcome = self._call(program, tests, limits)
        if _failure(outcome) or outcome.result.count(b"\n") != len(tests):
            return False
        answers = zip(tests, outcome.result.split(b"\n"), strict=False)  # the last is empty
        return all(
            self._compare(test, answer, _returned, value_matches) == _OK for test, answer in answers
        )

    def _call(
        self, program: Program | RemoteProgram, tests: Sequence[CallTest], limits: Limits
    ) -> Outcome:
        arguments = [values.encode(test.args) for test in tests]
        return self._count(program.call(self.problem.entry_point or "", arguments, limits))

    def _judge(self, program: Program | RemoteProgram, test: Test) -> Judged:
        if isinstance(test, AssertTest):
            return self._asserts(program, test)
        if isinstance(test, CallTest):
            outcome = self._call(program, [test], self.limits)
            return _failure(outcome) or self._compare(
                test, outcome.result, _returned, value_matches
            )
        outcome = self._count(program.run(test.input.encode(errors="surrogatepass"), self.limits))
        return _failure(outcome) or self._compare(test, outcome.stdout, _printed, text_matches)

    def _count(self, outcome: Outcome) -> Outcome:
        self.sums = replace(
            self.sums,
            cpu_s=self.sums.cpu_s + outcome.cpu_s,
            wall_s=self.sums.wall_s + outcome.wall_s,
            memory_bytes=max(self.sums.memory_bytes, outcome.memory_bytes),
        )
        return outcome

    def _compare(
        self, test: StdinTest | CallTest, output: bytes, read: Callable, matches: Callable
    ) -> Judged:
        try:
            found = read(output)
            if self.problem.comparison.rule == "checker":
                right = self._checker(test, found)
            else:
                right = matches(found, test.output, self.problem.comparison)
                if not right and isinstance(test, CallTest) and test.boxed:
                    right = matches(found, [test.output], self.problem.comparison)
        except (ValueError, ArithmeticError, RecursionError, MemoryError) as error:
            return Verdict.WRONG_ANSWER, f"nothing that can be compared: {error!r}"
        return _OK if right else (Verdict.WRONG_ANSWER, "another output than expected")

    def _checker(self, test: StdinTest | CallTest, found: object) -> bool:
        """Whether the problem's checker takes ``found``; what it fails on is wrong, if it can take
        what is expected.

        Raises:
            ValueRefused: ``found`` is too large to be given to it.
            SandboxError: the checker is broken.
        """
        outcome = self._checked(test, found)
        if _failure(outcome) is None:
            return _returned(outcome.result) is True
        try:
            outcome = self._checked(test, test.output)
        except values.ValueRefused as error:
            raise SandboxError(
                f"the test of {self.problem.source}/{self.problem.name}: {error}"
            ) from error
        if _failure(outcome):
            raise SandboxError(
                f"the checker of {self.problem.source}/{self.problem.name} failed: {outcome.stderr}"
            )
        return False

    def _checked(self, test: StdinTest | CallTest, output: object) -> Outcome:
        given = test.input if isinstance(test, StdinTest) else test.args
        arguments = values.encode((given, test.output, output))
        with self.worker.program(self.problem.comparison.checker or "") as checker:
            return checker.call("check", [arguments], self.limits)

    def _asserts(self, program: Program | RemoteProgram, test: AssertTest) -> Judged:
        """The tests in a jail of their own, the program's functions in another; a socket between
        them.
        """
        records = _classes(self.problem.prelude)
        mine, theirs = socket_pair(socket.SOCK_STREAM)
        # Each waits while the other computes; the tests may take as much CPU time as the program.
        serving_limits = replace(self.limits, pauses_s=2 * self.limits.idle_s)
        testing_limits = replace(self.limits, pauses_s=serving_limits.wall_s)
        with self.worker.program(test.source, self.problem.prelude) as tests, mine, theirs:
            with program.begin_serving(mine, records, serving_limits) as serving:
                mine.close()
                asserted = tests.asserts(theirs, test.names, records, test.objects, testing_limits)
                theirs.close()
                served = self._count(serving.outcome())
        if asserted.exceeded:
            return Verdict.TIME_LIMIT, "the tests did not come to an end with what it returned"
        if asserted.exit_code in (PASSED, PROGRAM_ENDED):
            ended_early = (Verdict.RUNTIME_ERROR, "ended before it had answered")
            return _failure(served) or (_OK if asserted.exit_code == PASSED else ended_early)
        if asserted.exit_code == -signal.SIGKILL and (failure := _failure(served)):
            return failure
        if asserted.exit_code in (
            -signal.SIGKILL,
            TESTS_LACK_A_MODULE,
        ):  # nothing that an answer can do
            raise SandboxError(
                f"the tests of {self.problem.source}/{self.problem.name} failed: {asserted.stderr}"
            )
        verdict = (
            Verdict.RUNTIME_ERROR if asserted.exit_code == PROGRAM_RAISED else Verdict.WRONG_ANSWER
        )
        return verdict, _last_line(asserted.stderr)


def _failure(outcome: Outcome) -> Judged | None:
    """What a run failed of, its output aside."""
    if outcome.exceeded:
        return _EXCEEDED[outcome.exceeded]
    if outcome.exit_code < 0:
        return Verdict.RUNTIME_ERROR, f"killed by signal {-outcome.exit_code}"
    if outcome.exit_code:
        return _EXITS.get(outcome.exit_code, Verdict.RUNTIME_ERROR), _last_line(outcome.stderr)
    return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def _readable(reason: str) -> str:
    """One short line; a program's own text must not reach a terminal as commands."""
    return "".join(c if c.isprintable() else " " for c in reason[:MOST_REASON])


def _printed(output: bytes) -> str:
    return output.decode(errors="replace")


def _returned(result: bytes) -> object:
    return values.decode(result.decode(errors="replace"))


@functools.lru_cache(maxsize=64)
def _classes(prelude: str) -> tuple[str, ...]:
    """Classes that a prelude defines: their instances may cross as records."""
    return tuple(node.name for node in ast.parse(prelude).body if isinstance(node, ast.ClassDef))
