"""A proposed problem before anything of it has run, and what became of it.

Invariant: everything that decides about a candidate is in :meth:`Candidate.digest`, so stored
results are used for equal candidates only.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verl_pipeline.recipes.deepcoder.generation.program_runs import ProgramInput


@dataclass(frozen=True)
class Candidate:
    """A proposed problem.

    Attributes:
        id: unique within its source.
        question: the statement.
        program: the reference, in which mutants have their faults.
        epilogue: what follows it in every solution.
        stdin_main: code that calls ``entry_point`` with the lines of JSON on standard input and
            prints the result as JSON. With it, the finished problem reads standard input; until
            then it is called, which costs one process instead of one for each test.
        generator: program with ``generate_inputs(rng)``, which returns the arguments (a dict by
            parameter, or a list) or the text on standard input.
        entry_point: function that tests call; None: the program reads standard input.
        parameters: of the function; with them, a generator's dict becomes arguments.
        optional: how many of the last parameters have default values.
        given: tests that the problem came with, as pairs of input and output.
        may_round: outputs that depend on rounding errors may be rounded, and the statement says so.
        difficulty: in the words of the source.
        notes: what the row says about its origin.
    """

    id: str
    question: str
    program: str
    generator: str
    entry_point: str | None
    epilogue: str = ""
    stdin_main: str = ""
    parameters: tuple[str, ...] = ()
    optional: int = 0
    given: tuple[tuple[ProgramInput, Any], ...] = ()
    may_round: bool = False
    difficulty: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def solution(self) -> str:
        """The reference as a solution of the finished problem."""
        return self.program + self.epilogue + self.stdin_main

    def digest(self, settings: Any) -> str:
        """Identify the candidate with the settings that decide about it."""
        content = json.dumps([dataclasses.asdict(self), settings], sort_keys=True)
        return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]


class Rejection(Exception):
    """A candidate is no problem to train on.

    Attributes:
        reason: a few words, the same for all candidates that are rejected for it.
        detail: what is specific to this one.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class GeneratedRow:
    """A row of a file of generated problems: a problem, or why there is none.

    Attributes:
        id: of the candidate.
        question, solutions, difficulty: as in a data source's row.
        tests: inputs and outputs as TACO has them.
        generation: figures about the tests (mutants, seconds), and the origin.
        skip_reason: why it was rejected, as ``reason: detail``.
    """

    id: str
    question: str = ""
    tests: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    solutions: tuple[str, ...] = ()
    difficulty: str = ""
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    skip_reason: str | None = None

    @classmethod
    def from_rejection(cls, candidate_id: str, rejection: Rejection) -> "GeneratedRow":
        """Build the row of a rejected candidate."""
        return cls(candidate_id, skip_reason=str(rejection))
