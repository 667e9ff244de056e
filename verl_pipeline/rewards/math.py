"""Reward for mathematics, for verl's reward loop: 1 if the last boxed answer is right, else 0.

    reward.custom_reward_function.path=pkg://verl_pipeline.rewards.math

:mod:`verl_pipeline.rewards.math_answer` decides whether the answer equals the expected one, in a
process of its own under limits.

Invariants:
* Text before the last ``</think>`` is no answer, and neither is text without ``\\boxed{...}``; the
  last box counts.
* All results have the same keys with values of the same types.
* An answer is wrong if it cannot be read, if comparing it exceeds the limits of CPU time or memory,
  or if it ends two processes in a row. What no answer can cause is ``infrastructure``: an expected
  answer that cannot be read, or a process that does not start, is killed from outside twice, or
  gets no CPU time.
* The event loop is never blocked. Each process belongs to one thread and ends with it; a fork
  shares none of them.
"""

import asyncio
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from verl_pipeline.grading.program_extraction import extract_answer_text
from verl_pipeline.grading.verdict import Verdict, VerdictAndReason
from verl_pipeline.rewards.math_answer import UNREADABLE
from verl_pipeline.verl_adapter.rewards.boxed_answers import extract_boxed_answer

logger = logging.getLogger(__name__)

# Limits for one answer: of CPU time, and of wall-clock time including the start of a process. If
# the latter passes first, the machine is too busy, and the answer is not to blame.
CPU_LIMIT_S, WALL_LIMIT_S = 10.0, 240.0
# A final answer is short, and the time for parsing grows faster than its length. An answer may have
# this many characters more than twice the expected one.
MAX_ANSWER_CHARACTERS = 2000

_VERIFIER_COMMAND = [
    sys.executable,
    "-c",
    "from verl_pipeline.rewards.math_answer import serve_comparisons; serve_comparisons()",
]
# Signals that an answer can cause; all others come from outside.
_CRASH_SIGNALS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGXCPU,
}


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    workers: int = 1,
    **_unused: Any,
) -> dict[str, float | str]:
    """Grade one response.

    Args:
        data_source, extra_info: unused, part of verl's interface.
        solution_str: the response, as text.
        ground_truth: the expected answer: a number or an expression, in LaTeX or plain.
        workers: number of comparisons at a time in this process.

    Returns:
        ``score`` and ``acc`` (1.0 or 0.0), ``grader``, ``verdict`` and ``reason``.
    """
    expected = str(ground_truth)
    answer = extract_boxed_answer(extract_answer_text(solution_str))
    max_characters = MAX_ANSWER_CHARACTERS + 2 * len(expected)
    if answer is None:
        verdict, reason = Verdict.WRONG_ANSWER, "no \\boxed{} after the last </think>"
    elif len(answer) > max_characters:
        verdict, reason = (
            Verdict.WRONG_ANSWER,
            f"an answer of more than {max_characters} characters",
        )
    else:
        threads = _get_thread_pool(workers, os.getpid())
        verdict, reason = await asyncio.get_running_loop().run_in_executor(
            threads, _grade_answer, expected, answer
        )
    if verdict is Verdict.INFRASTRUCTURE and reason.startswith(UNREADABLE):
        _report_unreadable_answer(expected, reason)
    elif verdict is Verdict.INFRASTRUCTURE:
        logger.error("an answer could not be compared with %r: %s", expected, reason)
    score = float(verdict is Verdict.ACCEPTED)
    return {
        "score": score,
        "acc": score,
        "grader": "math",
        "verdict": str(verdict),
        "reason": reason,
    }


def find_unreadable_answer(expected: str) -> str | None:
    """Return why no answer can be compared with ``expected``, or None if answers can be.

    A row with such an expected answer has no reward: refuse it when it is read.

    Raises:
        ComparisonError: the comparing process does not work here.
    """
    threads = _get_thread_pool(1, os.getpid())
    verdict, reason = threads.submit(_grade_answer, expected, None).result()
    if verdict is Verdict.WRONG_ANSWER:  # it took too much CPU time or memory
        return f"it cannot be compared with itself: {reason}"
    if verdict is Verdict.INFRASTRUCTURE and not reason.startswith(UNREADABLE):
        raise ComparisonError(f"answers cannot be compared on this machine: {reason}")
    return None if verdict is Verdict.ACCEPTED else reason


class ComparisonError(RuntimeError):
    """The process that compares answers does not work."""


@functools.lru_cache(maxsize=10_000)
def _report_unreadable_answer(expected: str, reason: str) -> None:
    """Log once that no answer to a row can have a reward."""
    logger.error(
        "%r: %s. All its trajectories are infrastructure failures: correct the row or leave it out "
        "(said once for each row)",
        expected,
        reason,
    )


class _VerifierProcess:
    """A process that compares answers.

    Attributes:
        owner: id of the process that started it; only that process may use it.
        is_ready: whether it has reported that it can compare.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.is_ready = False
        self._process = subprocess.Popen(
            _VERIFIER_COMMAND,
            bufsize=0,  # `wait` would not see data in a buffer of this process
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # sympy processes parts of an expression in an order that depends on hashes.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"},
            start_new_session=True,  # Ctrl-C in a terminal must not reach it
        )

    def compare_answers(self, expected: str, answer: str | None) -> VerdictAndReason:
        """Return the verdict on ``answer``, or on ``expected`` itself if there is no answer.

        Raises:
            TimeoutError: ``WALL_LIMIT_S`` passed.
            OSError, EOFError: the process has ended.
        """
        assert self._process.stdin
        deadline = time.monotonic() + WALL_LIMIT_S
        if not self.is_ready:
            self._read_line(deadline)
            self.is_ready = True
        request = json.dumps([expected, answer, CPU_LIMIT_S])
        self._process.stdin.write(request.encode() + b"\n")
        verdict, reason = json.loads(self._read_line(deadline))
        return Verdict(verdict), reason

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout
        if not wait([self._process.stdout.fileno()], max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return line

    def close(self) -> int:
        """Kill the process; return how it ended, as ``Popen.returncode`` does."""
        with self._process:
            self._process.kill()
        return self._process.returncode


_thread_state = threading.local()


def _grade_answer(expected: str, answer: str | None) -> VerdictAndReason:
    for _attempt in range(2):
        try:
            verifier = _get_verifier()
        except OSError as error:
            return Verdict.INFRASTRUCTURE, f"no process for the comparison: {error}"
        try:
            return verifier.compare_answers(expected, answer)
        except (OSError, EOFError) as error:
            timed_out = isinstance(error, TimeoutError)
        _thread_state.verifier = None
        return_code = verifier.close()
        if timed_out:
            reason = f"{WALL_LIMIT_S:g} s passed without {CPU_LIMIT_S:g} s of CPU time"
            return Verdict.INFRASTRUCTURE, reason
        if verifier.is_ready and return_code == -signal.SIGPROF:
            return Verdict.WRONG_ANSWER, f"not compared within {CPU_LIMIT_S:g} s of CPU time"
    if verifier.is_ready and (return_code > 0 or -return_code in _CRASH_SIGNALS):
        reason = f"the answer ended the comparing process twice ({return_code})"
        return Verdict.WRONG_ANSWER, reason
    return Verdict.INFRASTRUCTURE, f"the comparing process was ended twice ({return_code})"


def _get_verifier() -> _VerifierProcess:
    """Return the process of this thread; start it if there is none."""
    verifier: _VerifierProcess | None = getattr(_thread_state, "verifier", None)
    if verifier is None or verifier.owner != os.getpid():
        verifier = _thread_state.verifier = _VerifierProcess()
    return verifier


@functools.cache
def _get_thread_pool(count: int, _pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="math")
