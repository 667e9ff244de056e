"""Example of a custom reward: tests in its own format, and a bonus for short programs.

    reward.custom_reward_function.path=examples/custom_reward/reward.py

``reward_model.ground_truth`` has one test per line, ``input => output``.

Invariants, which hold for any reward:
* All results have the same keys with values of the same types, because verl makes columns of them.
* A failure that is not the program's has the verdict ``infrastructure``, which the filter of that
  name drops.
* The event loop is never blocked, because other responses are generated and graded on it.
"""

import asyncio
import functools
import json

from verl_pipeline.grading import Problem, StdinTest, Verdict, grade_response
from verl_pipeline.sandbox import Sandbox

# A response of this many characters gets half of the bonus.
HALF_BONUS_CHARACTERS = 200


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
        data_source, solution_str, ground_truth, extra_info: verl passes these to every reward.
        workers: number of programs at a time, in each of verl's ``reward.num_workers`` processes.
        bonus: the most that a right program can get in addition to 1.
    """
    problem = read_problem(ground_truth, str((extra_info or {}).get("index", "?")))
    result = await asyncio.to_thread(grade_response, problem, solution_str, get_sandbox(workers))
    is_right = result.verdict is Verdict.ACCEPTED
    length_factor = HALF_BONUS_CHARACTERS / (HALF_BONUS_CHARACTERS + len(solution_str))
    # verl needs a number even for an infrastructure failure; the filter drops that trajectory.
    return {
        "score": 1.0 + bonus * length_factor if is_right else 0.0,
        "acc": float(is_right),
        "grader": "short_programs",
        "verdict": str(result.verdict),
        "reason": result.reason,
        # Logged as quantiles, `reward/short_programs/cpu_s/p50` and `.../p95`. Text, because verl's
        # validation would log a dozen statistics of each number that stands here.
        "figures": json.dumps({"cpu_s": result.cpu_s}),
    }


def read_problem(text: str, name: str) -> Problem:
    """Read the tests in ``text``.

    Raises:
        ValueError: a line is not a test, so that a wrong data set is noticed at once.
    """
    tests = []
    for line in text.strip().split("\n"):
        stdin, arrow, output = line.partition("=>")
        if not arrow:
            raise ValueError(f"problem {name}: not a test: {line!r}")
        tests.append(StdinTest(stdin.strip() + "\n", output.strip() + "\n"))
    return Problem(name=name, source="short_programs", tests=tuple(tests), time_s=4.0)


@functools.cache
def get_sandbox(workers: int) -> Sandbox:
    """Return the sandbox of this process.

    Its warm interpreters start when they are first needed and end with the process.
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
