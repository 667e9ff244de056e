"""Which of a problem's tests a program is run on.

Invariant: a selection is a problem like any other: what belongs to the problem (entry point,
limits) is never lost.
"""

import random
from dataclasses import replace

from verl_pipeline.grading.problem import Problem, Test


def longest_inputs(problem: Problem, count: int = 15) -> Problem:
    """The ``count`` tests with the longest inputs (ties: the first), in their own order: what
    DeepCoder trained on.
    """
    ranked = sorted(
        range(len(problem.tests)), key=lambda index: (-problem.tests[index].size, index)
    )
    return _only(problem, sorted(ranked[:count]))


def sample(problem: Problem, count: int, seed: int) -> Problem:
    """``count`` tests drawn without replacement by ``seed`` and the problem's name, in their own
    order.
    """
    generator = random.Random(f"{seed}/{problem.source}/{problem.name}")
    return _only(
        problem, sorted(generator.sample(range(len(problem.tests)), min(count, len(problem.tests))))
    )


def _only(problem: Problem, indices: list[int]) -> Problem:
    tests: tuple[Test, ...] = tuple(problem.tests[index] for index in indices)
    return replace(problem, tests=tests, public=sum(index < problem.public for index in indices))
