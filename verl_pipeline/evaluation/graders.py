"""Grades responses: programs in the sandbox, mathematics with the maths reward, others with the
reward function of a training.

Invariants:
* A failed grading has no reward (None); the next call of the evaluation repeats it.
* The answer by which a sample votes depends only on the response and on the examples in the prompt,
  never on hidden tests.
"""

import ast
import asyncio
import functools
import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from verl_pipeline.evaluation.eval_settings import BadSetting, ResponseGraderConfig
from verl_pipeline.evaluation.reward_functions import RewardCall, RewardFunction, RewardProcesses
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading import Problem, Verdict, grade_response
from verl_pipeline.grading.program_extraction import extract_answer_text, extract_last_program
from verl_pipeline.grading.program_outputs import run_inputs
from verl_pipeline.sandbox import SandboxError, make_sandbox
from verl_pipeline.verl_adapter.rewards.scored_response import UngradedResponse


class Grader:
    """A thread-safe grader with one sandbox.

    Attributes:
        tier: isolation of programs.
        workers: programs that may run at a time.
    """

    def __init__(self, config: ResponseGraderConfig):
        self.tier = config.tier
        self._sandbox = make_sandbox(config.tier, config.workers, config.url)
        self.workers = self._sandbox.workers
        self._reward_s = config.reward_s
        self._reward_lock = threading.Lock()
        self._rewards: list[tuple[RewardFunction, RewardProcesses]] = []

    def check_sandbox(self) -> None:
        """Start one worker of the sandbox, so that failures show before generation.

        Raises:
            SandboxError: the worker cannot start.
        """
        self._sandbox.check_start()

    def grade_item(self, item: TaskItem, response: str) -> dict[str, Any]:
        """Return the verdict of a response as a row of ``verdicts.jsonl``.

        ``verdict``; ``reward``: 1.0, 0.0 or None; ``reason``; ``answer``: the answer by which the
        sample votes, or None; ``shown``: whether the tests in the prompt passed, None if it has
        none; ``tier``. A training's reward function may give any finite ``reward``: ``acc`` if it
        reports one, else its score, which is ``training_reward`` in any case.
        """
        if item.reward is not None:
            return self._grade_as_training(item.reward, response)
        if item.problem is None:
            return _grade_math(item, response, self.workers)
        return self._grade_program(item.problem, response)

    def _grade_program(self, problem: Problem, response: str) -> dict[str, Any]:
        result = grade_response(problem, response, self._sandbox)
        shown = None
        if problem.public:
            # Tests run in order, the public ones first, and stop at the first failure.
            shown = result.verdict is Verdict.ACCEPTED or (
                result.failed_test is not None and result.failed_test >= problem.public
            )
        return {
            "verdict": str(result.verdict),
            "reward": result.reward,
            "reason": result.reason,
            "answer": None if shown is False else make_program_key(response),
            "shown": shown,
            "tier": result.tier or self.tier,
        }

    def run_program(
        self,
        problem: Problem,
        program: str,
        entry_point: str | None,
        inputs: Sequence[Any],
        cpu_s: float,
    ) -> list[str | None]:
        """Return what a program prints or returns for each input; None where it fails.

        Args:
            entry_point: function to call; None: the inputs are texts for standard input.
            cpu_s: CPU seconds for each input.

        Raises:
            SandboxError: two workers failed.
        """
        run = functools.partial(run_inputs, problem, program, entry_point, inputs, cpu_s)
        try:
            return run(self._sandbox)
        except (SandboxError, OSError):
            pass
        try:
            return run(self._sandbox)
        except OSError as error:
            raise SandboxError(str(error)) from error

    def _grade_as_training(self, call: RewardCall, response: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "reward": None,
            "training_reward": None,
            "answer": None,
            "shown": None,
        }
        try:
            scored = self._get_processes(call.function).score_response(call, response)
        except UngradedResponse as error:
            row |= {"verdict": str(Verdict.INFRASTRUCTURE), "reason": str(error)}
        else:
            is_accepted = scored.correctness >= 1
            verdict = Verdict.ACCEPTED if is_accepted else Verdict.WRONG_ANSWER
            row |= {
                "verdict": scored.verdict if scored.verdict in list(Verdict) else str(verdict),
                "reward": scored.correctness,
                "training_reward": scored.reward,
                "reason": scored.reason or f"reward {scored.reward:g}",
                "answer": scored.prediction,
            }
        return row | {"tier": "process"}

    def _get_processes(self, function: RewardFunction) -> RewardProcesses:
        with self._reward_lock:  # two first calls at once would each make them
            for known, processes in self._rewards:
                if known == function:
                    return processes
            made = RewardProcesses(function, self.workers, self._reward_s)
            self._rewards.append((function, made))
            return made

    def end_rewards(self) -> None:
        """End calls of reward functions, which may hang; their samples stay ungraded."""
        with self._reward_lock:
            for _function, processes in self._rewards:
                processes.close()

    def close(self) -> None:
        """End the processes of the sandbox and of reward functions."""
        self._sandbox.close()
        self.end_rewards()


def find_unreadable_answers(items: Iterable[TaskItem]) -> dict[str, str]:
    """Return, by id, why expected answers cannot be compared with any answer.

    Raises:
        BadSetting: answers cannot be compared on this machine.
    """
    # Imported here: it imports verl, which takes seconds.
    from verl_pipeline.rewards import math

    try:
        reasons = {item.id: math.find_unreadable_answer(item.answer or "") for item in items}
    except math.ComparisonError as error:
        raise BadSetting(f"{error}; the maths tasks need math-verify[antlr4-9-3]") from error
    return {name: reason for name, reason in reasons.items() if reason}


def make_program_key(response: str) -> str | None:
    """Return a digest of the response's program that ignores layout and comments.

    Returns None if the response has no program.
    """
    program = extract_last_program(response)
    if program is None:
        return None
    try:
        text = ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        text = program
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def make_number_key(answer: str) -> str:
    """Return a boxed answer in the form by which samples vote.

    Whole numbers vote by value, other answers by their text without spaces.
    """
    text = re.sub(r"\\[,!;]|[\s$]", "", answer)
    match = re.fullmatch(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.0*)?", text)
    if not match:
        return text
    # As text: Python's int() refuses numbers of more than 4,300 digits.
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def _grade_math(item: TaskItem, response: str, workers: int) -> dict[str, Any]:
    # Imported here: it imports verl, which takes seconds.
    from verl_pipeline.rewards import math

    result = asyncio.run(math.compute_score("", response, item.answer or "", workers=workers))
    boxed = math.extract_boxed_answer(extract_answer_text(response))
    infrastructure = result["verdict"] == Verdict.INFRASTRUCTURE
    return {
        "verdict": result["verdict"],
        "reward": None if infrastructure else result["score"],
        "reason": result["reason"],
        "answer": None if boxed is None else make_number_key(boxed),
        "shown": None,
        "tier": "process",
    }
