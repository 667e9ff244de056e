"""Grades a program: runs its tests in the sandbox, one after another, and compares outside.

Invariants:
* No expected output enters a process of the program; asserts run in a process and jail of their
  own.
* Grading stops at the first test that does not pass; there is no partial credit. If all tests are
  asked for, the others run as well, and verdict and reward are the same.
* If the sandbox fails, another worker grades the program once more; if that fails too, the verdict
  is ``infrastructure``. Nothing that a program does inside its jail leads there.
"""

import ast
import functools
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace

from verl_pipeline.grading.problem import (
    AssertTest,
    CallTest,
    Problem,
    PytestTest,
    StdinTest,
    Test,
)
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.grading.run_failures import find_failure, get_last_line, make_printable
from verl_pipeline.grading.run_output import encode_output, is_matching_output
from verl_pipeline.grading.verdict import GradingResult, Verdict, VerdictAndReason
from verl_pipeline.sandbox import (
    AssertRun,
    RemoteSandbox,
    RunLimits,
    RunOutcome,
    Sandbox,
    SandboxError,
)
from verl_pipeline.sandbox.channels import make_socket_pair, open_memory_file
from verl_pipeline.sandbox.inside import answer_clock, value_codec
from verl_pipeline.sandbox.inside.exit_codes import (
    FAULTS_OF_TESTS,
    PASSED,
    PROGRAM_ENDED,
    PROGRAM_RAISED,
)
from verl_pipeline.sandbox.program_run import SandboxedProgram
from verl_pipeline.sandbox.remote_sandbox import RemoteProgram, RemoteWorker
from verl_pipeline.sandbox.sandbox_worker import SandboxWorker

MAX_ATTEMPTS = 2
# CPU seconds for all call tests in one process; if they take longer, they run one by one.
BATCHED_CALLS_CPU_S = 1.0
# A message between a program and its tests may be as long as the program's limit of memory, divided
# by this: its parts take up to eight times as much memory as its text.
MESSAGE_SHARE = 8
_ACCEPTED = (Verdict.ACCEPTED, "")

AnySandbox = Sandbox | RemoteSandbox
AnyProgram = SandboxedProgram | RemoteProgram


def grade_response(
    problem: Problem, response: str, sandbox: AnySandbox, all_tests: bool = False
) -> GradingResult:
    """Grade the last program of a model's response, like :func:`grade`.

    :func:`~verl_pipeline.grading.program_extraction.extract_last_program` says which one that is.
    """
    program = extract_last_program(response)
    if program is None:
        return GradingResult(
            Verdict.NO_CODE,
            "no complete fenced block after the last </think>",
            total=len(problem.tests),
        )
    return grade(problem, program, sandbox, all_tests)


def grade(
    problem: Problem, program: str, sandbox: AnySandbox, all_tests: bool = False
) -> GradingResult:
    """Grade a program on the tests of ``problem``; never raises for anything the program does.

    Args:
        all_tests: run the tests after the first failure too, to count how many pass. Each test has
            the limits that it has otherwise, so that a program that never ends takes
            ``problem.time_s`` for every test. If the sandbox fails after the first failure, the
            verdict stays, and ``ran`` is less than ``total``.
    """
    failure: Exception | None = None
    first_failure: GradingResult | None = None
    for _ in range(MAX_ATTEMPTS):
        try:
            with sandbox.lend_worker() as worker:
                grader = _ProgramGrader(problem, program, worker)
                try:
                    return grader.grade_tests(all_tests)
                finally:
                    if all_tests and grader.result.verdict is not Verdict.ACCEPTED:
                        first_failure = grader.result
        except (SandboxError, OSError) as error:
            failure = error
    if first_failure is not None:
        return first_failure
    return GradingResult(
        Verdict.INFRASTRUCTURE, str(failure), total=len(problem.tests), tier=sandbox.tier
    )


class _ProgramGrader:
    """One program on one worker; sums up the time and memory of its runs."""

    def __init__(self, problem: Problem, program: str, worker: SandboxWorker | RemoteWorker):
        self.problem, self.source, self.worker = problem, program, worker
        self.limits = RunLimits(cpu_s=problem.time_s, memory_bytes=problem.memory_bytes)
        self.result = GradingResult(Verdict.ACCEPTED, total=len(problem.tests), tier=worker.tier)

    def grade_tests(self, all_tests: bool) -> GradingResult:
        count = len(self.problem.tests)
        with self.worker.load_program(self.source, self.problem.prelude) as program:
            if self._has_passed_calls_in_one_run(program):
                return replace(self.result, passed=count, ran=count)
            for index, test in enumerate(self.problem.tests):
                self._count_test(index, *self._run_test(program, test))
                if self.result.verdict is not Verdict.ACCEPTED and not all_tests:
                    break
        return self.result

    def _count_test(self, index: int, verdict: Verdict, reason: str) -> None:
        """Add a test to the result, whose verdict is that of the first test that failed."""
        self.result = replace(self.result, ran=self.result.ran + 1)
        if verdict is Verdict.ACCEPTED:
            self.result = replace(self.result, passed=self.result.passed + 1)
        elif self.result.verdict is Verdict.ACCEPTED:
            self.result = replace(
                self.result, verdict=verdict, reason=make_printable(reason), failed_test=index
            )

    def _has_passed_calls_in_one_run(self, program: AnyProgram) -> bool:
        """Whether all call tests pass in one process.

        An optimization: most programs need less time than the start of a process. False decides
        nothing; the tests then run one by one.
        """
        tests = [test for test in self.problem.tests if isinstance(test, CallTest)]
        if len(tests) < 2:
            return False
        limits = replace(
            self.limits, cpu_s=min(BATCHED_CALLS_CPU_S, self.limits.cpu_s), pauses_s=0.0
        )
        outcome = self._call_tests(program, tests, limits)
        if find_failure(outcome) or outcome.result.count(b"\n") != len(tests):
            return False
        # Each line ends with a newline, so the last part is empty.
        answers = zip(tests, outcome.result.split(b"\n"), strict=False)
        return all(self._compare_output(test, answer) == _ACCEPTED for test, answer in answers)

    def _call_tests(
        self, program: AnyProgram, tests: Sequence[CallTest], limits: RunLimits
    ) -> RunOutcome:
        try:
            arguments = [value_codec.encode_value(test.args) for test in tests]
        except value_codec.ValueRefused as error:
            name = f"{self.problem.source}/{self.problem.name}"
            raise SandboxError(f"an argument of {name} cannot cross: {error}") from error
        entry_point = self.problem.entry_point or ""
        return self._add_usage(program.call_function(entry_point, arguments, limits))

    def _run_test(self, program: AnyProgram, test: Test) -> VerdictAndReason:
        if isinstance(test, AssertTest):
            return self._run_assert_test(program, test)
        if isinstance(test, CallTest):
            outcome = self._call_tests(program, [test], self.limits)
            return find_failure(outcome) or self._compare_output(test, outcome.result)
        stdin = test.input.encode(errors="surrogatepass")
        outcome = self._add_usage(program.run(stdin, self.limits))
        return find_failure(outcome) or self._compare_output(test, outcome.stdout)

    def _add_usage(self, outcome: RunOutcome) -> RunOutcome:
        self.result = replace(
            self.result,
            cpu_s=self.result.cpu_s + outcome.cpu_s,
            wall_s=self.result.wall_s + outcome.wall_s,
            memory_bytes=max(self.result.memory_bytes, outcome.memory_bytes),
        )
        return outcome

    def _compare_output(self, test: StdinTest | CallTest, output: bytes) -> VerdictAndReason:
        try:
            if self.problem.comparison.rule == "checker":
                is_right = self._is_accepted_by_checker(test, encode_output(test, output))
            else:
                is_right = is_matching_output(test, output, self.problem.comparison)
        except (ValueError, ArithmeticError, RecursionError, MemoryError) as error:
            return Verdict.WRONG_ANSWER, f"the output cannot be compared: {error!r}"
        if is_right:
            return _ACCEPTED
        return Verdict.WRONG_ANSWER, "the output differs from the expected one"

    def _is_accepted_by_checker(self, test: StdinTest | CallTest, output: str) -> bool:
        """Whether the problem's checker accepts ``output``, an encoded value.

        If the checker fails on ``output`` but not on the expected output, the answer is wrong.

        Raises:
            ValueRefused: ``output`` is not one value.
            SandboxError: the checker fails on the expected output too.
        """
        outcome = self._run_checker(test, output)
        if find_failure(outcome) is None:
            return outcome.result.decode().strip() == value_codec.encode_value(True)
        name = f"{self.problem.source}/{self.problem.name}"
        try:
            outcome = self._run_checker(test, value_codec.encode_value(test.output))
        except value_codec.ValueRefused as error:
            raise SandboxError(f"the test of {name}: {error}") from error
        if find_failure(outcome):
            raise SandboxError(f"the checker of {name} failed: {outcome.stderr}")
        return False

    def _run_checker(self, test: StdinTest | CallTest, output: str) -> RunOutcome:
        test_input = test.input if isinstance(test, StdinTest) else test.args
        known = [value_codec.encode_value(value) for value in (test_input, test.output)]
        # The judge does not parse what a program returned; the checker's jail does.
        arguments = value_codec.join_values([*known, output])
        with self.worker.load_program(self.problem.comparison.checker or "") as checker:
            return checker.call_function("check", [arguments], self.limits)

    def _run_assert_test(self, program: AnyProgram, test: AssertTest) -> VerdictAndReason:
        """Run the tests in one jail and the program in another, connected by a socket."""
        run = AssertRun(
            test.names,
            _find_class_names(self.problem.prelude),
            test.objects,
            self.problem.memory_bytes // MESSAGE_SHARE,
        )
        program_end, tests_end = make_socket_pair(socket.SOCK_STREAM)
        # The tests may pause longer than the program, and compute twice as long: they also decode
        # what it returns, which for millions of parts costs as much as to make them.
        tests_limits = replace(
            self.limits, cpu_s=2 * self.limits.cpu_s, pauses_s=2 * self.limits.idle_s
        )
        with (
            self.worker.load_program(test.source, self.problem.prelude) as tests,
            open_memory_file() as clock,
            program_end,
            tests_end,
        ):
            with program.start_serving(program_end, run, self.limits, clock) as serving:
                program_end.close()
                run_tests = tests.run_asserts
                if isinstance(test, PytestTest):
                    run_tests = functools.partial(tests.run_pytest, test.star_names, test.collected)
                tests_outcome = run_tests(tests_end, run, tests_limits, clock)
                tests_end.close()
                answer_clock.start_wait(clock)  # for the program's end
                program_outcome = self._add_usage(serving.wait_for_outcome())
        if tests_outcome.exceeded_limit:
            return Verdict.TIME_LIMIT, "the tests did not end with the returned values"
        exit_code = tests_outcome.exit_code
        if exit_code in (PASSED, PROGRAM_ENDED):
            ended_early = (Verdict.RUNTIME_ERROR, "ended before it had answered")
            return find_failure(program_outcome) or (
                _ACCEPTED if exit_code == PASSED else ended_early
            )
        if exit_code == -signal.SIGKILL and (failure := find_failure(program_outcome)):
            return failure
        # No answer of a program can cause these.
        if exit_code in (-signal.SIGKILL, *FAULTS_OF_TESTS):
            name = f"{self.problem.source}/{self.problem.name}"
            raise SandboxError(f"the tests of {name} failed: {tests_outcome.stderr}")
        verdict = Verdict.RUNTIME_ERROR if exit_code == PROGRAM_RAISED else Verdict.WRONG_ANSWER
        return verdict, get_last_line(tests_outcome.stderr)


@functools.lru_cache(maxsize=64)
def _find_class_names(prelude: str) -> tuple[str, ...]:
    """Return the classes that a prelude defines: their instances may cross as records."""
    return tuple(node.name for node in ast.parse(prelude).body if isinstance(node, ast.ClassDef))
