"""How a run failed, as a verdict and a reason of one line.

Invariant: a reason is printable: text of a program reaches no terminal as control codes.
"""

from verl_pipeline.grading.verdict import Verdict, VerdictAndReason
from verl_pipeline.sandbox import RunOutcome
from verl_pipeline.sandbox.inside.exit_codes import NO_FUNCTION, NO_SYNTAX, NO_VALUE

MAX_REASON_CHARACTERS = 300
_LIMIT_VERDICTS = {
    "cpu": (Verdict.TIME_LIMIT, "exceeded the limit of CPU time"),
    "wall": (Verdict.TIME_LIMIT, "was idle for too long"),
    "memory": (Verdict.MEMORY_LIMIT, "exceeded the limit of memory"),
    "output": (Verdict.OUTPUT_LIMIT, "exceeded the limit of output"),
}
_EXIT_VERDICTS = {
    NO_SYNTAX: Verdict.COMPILE_ERROR,
    NO_FUNCTION: Verdict.RUNTIME_ERROR,
    NO_VALUE: Verdict.WRONG_ANSWER,
}


def find_failure(outcome: RunOutcome) -> VerdictAndReason | None:
    """Return how a run failed, or None; its output is not considered."""
    if outcome.exceeded_limit:
        return _LIMIT_VERDICTS[outcome.exceeded_limit]
    if outcome.exit_code < 0:
        return Verdict.RUNTIME_ERROR, f"killed by signal {-outcome.exit_code}"
    if outcome.exit_code:
        verdict = _EXIT_VERDICTS.get(outcome.exit_code, Verdict.RUNTIME_ERROR)
        return verdict, get_last_line(outcome.stderr)
    return None


def get_last_line(text: str) -> str:
    """Return the last line of what a run wrote to standard error."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def make_printable(reason: str) -> str:
    """Return one short line: text of a program must not reach a terminal as control codes."""
    return "".join(c if c.isprintable() else " " for c in reason[:MAX_REASON_CHARACTERS])
