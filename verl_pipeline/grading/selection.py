"""Selects the subset of a problem's tests that a program is graded on.

Invariant: the selected tests form a complete problem; entry point, limits and all other fields of
the problem are kept.
"""

import random
from dataclasses import replace

from verl_pipeline.grading.problem import Problem, Test


def select_longest_inputs(problem: Problem, count: int = 15) -> Problem:
    """Keep the ``count`` tests with the longest inputs, in their original order.

    The default is DeepCoder's choice for training. Ties go to the earlier test.
    """
    ranked = sorted(
        range(len(problem.tests)), key=lambda index: (-problem.tests[index].size, index)
    )
    return _keep_tests(problem, sorted(ranked[:count]))


def sample_tests(problem: Problem, count: int, seed: int) -> Problem:
    """Draw ``count`` tests without replacement and keep their original order.

    The draw depends on ``seed`` and the problem's source and name only.
    """
    generator = random.Random(f"{seed}/{problem.source}/{problem.name}")
    return _keep_tests(
        problem, sorted(generator.sample(range(len(problem.tests)), min(count, len(problem.tests))))
    )


def _keep_tests(problem: Problem, indices: list[int]) -> Problem:
    tests: tuple[Test, ...] = tuple(problem.tests[index] for index in indices)
    return replace(problem, tests=tests, public=sum(index < problem.public for index in indices))
