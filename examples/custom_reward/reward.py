"""A reward of one's own: tests in a format of one's own, run in the sandbox, and a bonus for short
programs.

    reward.custom_reward_function.path=examples/custom_reward/reward.py

``reward_model.ground_truth`` holds a test a line, ``input => output``.

Invariants, which hold for any reward:
* Every result has the same keys, of the same types: verl makes columns of them.
* What is not the program's fault has the verdict ``infrastructure``, which the filter of that name
  drops.
* The event loop is never blocked: other responses are generated and graded on it.
"""

import asyncio
import functools

from verl_pipeline.grading import Problem, StdinTest, Verdict, grade_response
from verl_pipeline.sandbox import Sandbox

# Characters of a response that is half as long as it may be for a bonus.
SHORT = 200


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    workers: int = 1,
    bonus: float = 0.1,
    **_unused,
) -> dict[str, float | str]:
    """Grade one response.

    Args:
        data_source, solution_str, ground_truth, extra_info: what verl gives to every reward.
        workers: programs at a time, in each of verl's ``reward.num_workers`` processes.
        bonus: most that a right program can get on top of 1.
    """
    problem = read_problem(ground_truth, str((extra_info or {}).get("index", "?")))
    result = await asyncio.to_thread(grade_response, problem, solution_str, sandbox(workers))
    # An infrastructure verdict is dropped, not learned from: its score is there because verl wants
    # a number.
    right = result.verdict is Verdict.ACCEPTED
    return {
        "score": 1.0 + bonus * SHORT / (SHORT + len(solution_str)) if right else 0.0,
        "acc": float(right),
        "grader": "short_programs",
        "verdict": str(result.verdict),
        "reason": result.reason,
        "cpu_s": result.cpu_s,
    }


def read_problem(text: str, name: str) -> Problem:
    """The tests in ``text``; raises ``ValueError`` for what is none: a wrong data set is to be
    noticed at once.
    """
    tests = []
    for line in text.strip().splitlines():
        given, arrow, wanted = line.partition("=>")
        if not arrow:
            raise ValueError(f"problem {name}: no test: {line!r}")
        tests.append(StdinTest(given.strip() + "\n", wanted.strip() + "\n"))
    return Problem(name=name, source="short_programs", tests=tuple(tests), time_s=4.0)


@functools.cache
def sandbox(workers: int) -> Sandbox:
    """One for each process; its warm interpreters start when they are first needed and end with the
    process.
    """
    return Sandbox(workers)


if __name__ == "__main__":
    for program in (
        "print(sum(map(int, input().split())))",
        "print(3)",
        "import os; os.kill(1, 9)",
    ):
        response = f"```python\n{program}\n```"
        print(
            program, asyncio.run(compute_score("mine", response, "1 2 => 3\n3 4 => 7")), sep="\n  "
        )
