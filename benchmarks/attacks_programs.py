"""The programs that :mod:`benchmarks.attacks` sends to both graders.

They are the attack corpus, a right program for each of its problems, and the programs of
:mod:`benchmarks.attacks_handwritten`.

Invariants:
* A program goes to both graders with the same tests, or to neither; nothing here runs one.
* A program's digest covers all that prime_code receives, so that a stored result is used for
  exactly the same program and tests.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.helpers.attack_corpus import load_attacks
from tests.helpers.attack_problems import PROBLEMS
from tests.helpers.attack_problems import RIGHT_PROGRAMS as RIGHT_SOURCES
from verl_pipeline.grading import AssertTest, Problem
from verl_pipeline.grading.problem import STRICT

# Families of programs that are not in the corpus; the report has these names.
RIGHT_PROGRAMS, KNOWN_GAPS = "right programs", "known of prime_code"


@dataclass(frozen=True)
class BenchmarkProgram:
    """A program and the problem it is graded with.

    Attributes:
        family: folder of the corpus, or :data:`RIGHT_PROGRAMS` or :data:`KNOWN_GAPS`.
        name: unique within its family.
        intent: one line: what a wrong program tries, or what is special in a right one.
    """

    family: str
    name: str
    intent: str
    problem: Problem
    source: str

    @property
    def tests_json(self) -> str:
        """The tests as prime_code takes them: JSON of texts, as in PRIME's data.

        The input of a call is a line of JSON for each argument, its output is JSON.
        """
        tests: Any = self.problem.tests
        if self.problem.entry_point is None:
            return json.dumps(
                {
                    "inputs": [test.input for test in tests],
                    "outputs": [test.output for test in tests],
                }
            )
        inputs = ["\n".join(map(json.dumps, test.args)) for test in tests]
        outputs = [json.dumps(test.output) for test in tests]
        return json.dumps(
            {"fn_name": self.problem.entry_point, "inputs": inputs, "outputs": outputs}
        )

    @property
    def digest(self) -> str:
        """Identifies the program and its tests."""
        return hashlib.sha256(f"{self.source}\0{self.tests_json}".encode()).hexdigest()[:16]


def select_corpus_programs() -> tuple[list[BenchmarkProgram], dict[str, int]]:
    """Return the attacks that both graders can grade, and right programs for their problems.

    The second value has the number of other attacks, by the reason why they are left out.
    """
    attacks, left_out = [], Counter[str]()
    for attack in load_attacks():
        problem = PROBLEMS[attack.problem]
        if isinstance(problem.tests[0], AssertTest):
            left_out["asserts"] += 1
        elif problem.comparison != STRICT:
            left_out["tolerance, any order or a checker"] += 1
        else:
            attacks.append(
                BenchmarkProgram(
                    attack.family.name, attack.path.stem, attack.intent, problem, attack.source
                )
            )
    problems = {attack.problem.name: attack.problem for attack in attacks}
    right_programs = [
        BenchmarkProgram(
            RIGHT_PROGRAMS, name, "of the corpus's problem", problem, RIGHT_SOURCES[name]
        )
        for name, problem in problems.items()
    ]
    return [*attacks, *right_programs], left_out
