"""Grades one response: programs in the sandbox, answers to mathematics by the maths reward.

Invariants:
* A grading that failed has no reward (None) and is done again by the next call of the evaluation.
* What a vote may know of a sample (its answer) rests on what the prompt shows, never on a hidden
  test.
"""

import ast
import asyncio
import hashlib
import re
from typing import Any

from verl_pipeline.evaluation.config import GraderConfig
from verl_pipeline.evaluation.task import Item
from verl_pipeline.grading import Problem, Verdict, grade_response
from verl_pipeline.grading.program_extraction import extract_answer_text, extract_last_program
from verl_pipeline.sandbox import make_sandbox


class Grader:
    """Programs in one sandbox; thread-safe.

    Raises:
        SandboxError: the sandbox cannot start; said before anything is graded.
    """

    def __init__(self, config: GraderConfig):
        self.tier = config.tier
        self._sandbox = make_sandbox(config.tier, config.workers, config.url)
        self.workers = self._sandbox.workers

    def start(self) -> None:
        """Start one worker, to learn whether it can."""
        with self._sandbox.lend_worker():
            pass

    def grade(self, item: Item, response: str) -> dict[str, Any]:
        """``verdict``, ``reward`` (1.0, 0.0 or None), ``reason``, ``answer`` (by which samples
        vote, or None), ``shown`` (whether the tests that the prompt shows passed; None without
        such) and ``tier``.
        """
        if item.problem is None:
            return _mathematics(item, response, self.workers)
        return self._program(item.problem, response)

    def _program(self, problem: Problem, response: str) -> dict[str, Any]:
        result = grade_response(problem, response, self._sandbox)
        shown = None
        if problem.public:
            # Tests run in order and end with the first that fails: the shown ones come first.
            shown = result.verdict is Verdict.ACCEPTED or (
                result.failed_test is not None and result.failed_test >= problem.public
            )
        return {
            "verdict": str(result.verdict),
            "reward": result.reward,
            "reason": result.reason,
            "answer": None if shown is False else program_key(response),
            "shown": shown,
            "tier": result.tier or self.tier,
        }

    def close(self) -> None:
        """End the sandbox's processes."""
        self._sandbox.close()


def program_key(response: str) -> str | None:
    """A digest that is the same for programs that differ in layout and comments only; None without
    a program.
    """
    program = extract_last_program(response)
    if program is None:
        return None
    try:
        text = ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        text = program
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def number_key(answer: str) -> str:
    """A boxed answer as samples vote by it: whole numbers by value, everything else by its text
    without spaces.
    """
    text = re.sub(r"\\[,!;]|[\s$]", "", answer)
    match = re.fullmatch(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.0*)?", text)
    return str(int(match[1] + match[2].replace(",", ""))) if match else text


def _mathematics(item: Item, response: str, workers: int) -> dict[str, Any]:
    from verl_pipeline.rewards import math  # brings verl, which takes seconds

    result = asyncio.run(math.compute_score("", response, item.answer or "", workers=workers))
    boxed = math.extract_boxed_answer(extract_answer_text(response))
    infrastructure = result["verdict"] == Verdict.INFRASTRUCTURE
    return {
        "verdict": result["verdict"],
        "reward": None if infrastructure else result["score"],
        "reason": result["reason"],
        "answer": None if boxed is None else number_key(boxed),
        "shown": None,
        "tier": "process",
    }
