"""Grades one right and one wrong program in a sandbox, to know before it matters that it works.

Invariant: the sandbox works only if the right program is accepted and the wrong one refused.
"""

import time

from verl_pipeline.findings import Finding, State
from verl_pipeline.grading.problem import Problem, StdinTest
from verl_pipeline.grading.program_grader import grade
from verl_pipeline.grading.verdict import Verdict
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.sandbox import SandboxError, make_sandbox
from verl_pipeline.sandbox.start_failures import PAGE, explain_start_failure

TRIAL_PROBLEM = Problem("sum", "trial", (StdinTest("1 2\n", "3\n"),))
PROGRAMS = {
    "print(sum(map(int, input().split())))": Verdict.ACCEPTED,
    "print(4)": Verdict.WRONG_ANSWER,
}
_SANDBOX_FAILS = "code rewards, the command 'grade' and evaluations of code do not work"


def try_sandbox(tier: str, url: str | None = None, memory_limit_mb: int | None = None) -> Finding:
    """Return whether the sandbox of ``tier`` grades programs here, and what to do if it does not.

    Args:
        tier, url, memory_limit_mb: as for :func:`verl_pipeline.sandbox.make_sandbox`.

    Raises:
        ValueError: the arguments do not fit together.
    """
    topic = f"sandbox: tier {tier}"
    begin = time.monotonic()
    try:
        with make_sandbox(tier, 1, url, memory_limit_mb) as sandbox:
            sandbox.check_start()  # its error has the fix; grading would repeat the attempt
            for program, expected in PROGRAMS.items():
                result = grade(TRIAL_PROBLEM, program, sandbox)
                if result.verdict is Verdict.INFRASTRUCTURE:
                    if url is not None:  # this machine's kernel has no part in it
                        raise SandboxError(result.reason)
                    raise explain_start_failure(tier, result.reason)
                if result.verdict is not expected:
                    raise SandboxError(
                        f"{program!r} is {result.verdict}, not {expected}: {result.reason}"
                    )
    except SandboxError as error:
        detail = " ".join(error.problem.split())
        return Finding(topic, State.MISSING, detail, error.fix or f"see {PAGE}", _SANDBOX_FAILS)
    seconds = format_decimal(time.monotonic() - begin)
    detail = f"accepts a right program and refuses a wrong one ({seconds} s with the start)"
    return Finding(topic, State.OK, detail)
