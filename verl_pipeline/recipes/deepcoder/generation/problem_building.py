"""Turns a candidate into a verified problem: inputs, outputs, determinism, strength of the tests.

Invariants:
* Generator and reference run twice, in fresh processes of two interpreters with different hash
  seeds, the reference the second time in reverse order: what depends on chance, on the order of a
  set or on earlier calls answers differently.
* The reference passes all tests in the grader that training uses, and they reject at least
  ``mutation.min_score`` of its mutants.
* A failure of the sandbox is an error, never a rejection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from verl_pipeline.grading import Problem, Verdict, grade
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, GeneratedRow, Rejection
from verl_pipeline.recipes.deepcoder.generation.clock_use import find_clock_use
from verl_pipeline.recipes.deepcoder.generation.generation_config import (
    GenerateConfig,
    MutationConfig,
    TimeConfig,
)
from verl_pipeline.recipes.deepcoder.generation.input_drawing import draw_distinct_inputs
from verl_pipeline.recipes.deepcoder.generation.mutants import make_mutants
from verl_pipeline.recipes.deepcoder.generation.output_rounding import (
    ROUNDING_NOTE,
    is_sensitive_to_rounding,
    write_rounding,
)
from verl_pipeline.recipes.deepcoder.generation.program_runs import (
    Answer,
    Interpreters,
    ProgramInput,
    answer_inputs,
    answers_alike,
)
from verl_pipeline.recipes.deepcoder.generation.test_pairs import (
    TestPair,
    make_problem,
    print_pair,
    select_tests,
    write_tests,
)
from verl_pipeline.sandbox import SandboxError


@dataclass(frozen=True)
class MutationScore:
    """How many mutants there were, and how many of them the tests rejected."""

    mutants: int
    killed: int

    @property
    def share(self) -> float:
        """Killed share, from 0 to 1; 0 without mutants."""
        return self.killed / self.mutants if self.mutants else 0.0


def build_problem(
    candidate: Candidate, interpreters: Interpreters, config: GenerateConfig
) -> GeneratedRow:
    """Build the row of a candidate.

    Raises:
        Rejection: it is no problem to train on.
        SandboxError: the sandbox failed.
    """
    for name, text in (("reference", candidate.program), ("generator", candidate.generator)):
        if error := find_syntax_error(text):
            raise Rejection(f"the {name} is not valid Python", error)
    if use := find_clock_use(candidate.program):
        raise Rejection("the reference reads the clock", use)
    inputs = draw_distinct_inputs(candidate, interpreters, config)
    candidate, answers = _answer_alike(candidate, inputs, interpreters, config.time)
    if candidate.given:
        _check_given(candidate, interpreters.first, config.time)
    pairs = select_tests(candidate, inputs, answers, config.tests)
    problem = make_problem(candidate.id, pairs, candidate.entry_point)
    _check_reference(problem, candidate.program + candidate.epilogue, interpreters.first)
    score = score_tests(candidate, pairs, interpreters.first, config)
    _check_score(score, config.mutation)
    entry_point = candidate.entry_point
    if candidate.stdin_main:
        entry_point = None
        pairs = [print_pair(pair) for pair in pairs]
        problem = make_problem(candidate.id, pairs, entry_point)
        _check_reference(problem, candidate.solution, interpreters.first)
    return GeneratedRow(
        candidate.id,
        candidate.question,
        write_tests(pairs, entry_point),
        (candidate.solution,),
        candidate.difficulty,
        {
            **candidate.notes,
            "mutants": score.mutants,
            "killed": score.killed,
            "mutation_score": round(score.share, 4),
            "inputs": len(inputs),
            "tests": len(pairs),
        },
    )


def _answer_alike(
    candidate: Candidate,
    inputs: Sequence[ProgramInput],
    interpreters: Interpreters,
    time: TimeConfig,
) -> tuple[Candidate, list[Answer]]:
    """Return the reference's answers, and the candidate with its outputs rounded if needed.

    Raises:
        Rejection: the reference answers differently the second time.
    """

    def answer(sandbox: AnySandbox, some_inputs: Sequence[ProgramInput]) -> list[Answer]:
        program = candidate.program + candidate.epilogue
        return answer_inputs(sandbox, program, candidate.entry_point, some_inputs, time.reference_s)

    answers = answer(interpreters.first, inputs)
    if candidate.may_round and any(is_sensitive_to_rounding(one.value) for one in answers):
        candidate = replace(
            candidate,
            epilogue=write_rounding(candidate.entry_point or "") + candidate.epilogue,
            question=f"{candidate.question}\n\n{ROUNDING_NOTE}",
        )
        answers = answer(interpreters.first, inputs)
    if candidate.entry_point and sum(one.cpu_s for one in answers) > time.reference_s:
        raise Rejection("the reference is too slow", f"more than {time.reference_s:g} s")
    again = answer(interpreters.second, inputs[::-1])[::-1]
    for one, other, given in zip(answers, again, inputs, strict=True):
        if one.value != other.value:
            if one.is_slow or other.is_slow:
                raise Rejection("the reference is too slow", f"near {time.reference_s:g} s")
            raise Rejection(
                "the reference is not deterministic", f"two runs differ on {str(given)[:100]!r}"
            )
    return candidate, answers


def _check_given(candidate: Candidate, sandbox: AnySandbox, time: TimeConfig) -> None:
    """Compare the reference with the tests that the candidate came with.

    Raises:
        Rejection: it fails one of them.
    """
    pairs = [TestPair(*pair) for pair in candidate.given]
    problem = make_problem(candidate.id, pairs, candidate.entry_point)
    result = grade(problem, candidate.solution, sandbox)
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise SandboxError(result.reason)
    if result.verdict is not Verdict.ACCEPTED:
        number = (result.failed_test or 0) + 1
        detail = f"test {number} of {result.total}: {result.verdict}: {result.reason}"
        raise Rejection("the reference fails the tests that it came with", detail)


def _check_reference(problem: Problem, program: str, sandbox: AnySandbox) -> None:
    result = grade(problem, program, sandbox)
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise SandboxError(result.reason)
    if result.verdict is not Verdict.ACCEPTED:
        detail = f"{result.verdict}: {result.reason}"
        raise Rejection("the reference fails its own tests", detail)


def score_tests(
    candidate: Candidate, pairs: Sequence[TestPair], sandbox: AnySandbox, config: GenerateConfig
) -> MutationScore:
    """Count the mutants of the reference that the tests reject."""
    mutants = make_mutants(
        candidate.program,
        [candidate.entry_point] if candidate.entry_point else [],
        config.mutation.mutants,
        f"{config.seed} {candidate.id}",
    )
    inputs, outputs = [pair.input for pair in pairs], [pair.output for pair in pairs]
    killed = sum(
        not answers_alike(
            sandbox,
            mutant + candidate.epilogue,
            candidate.entry_point,
            inputs,
            outputs,
            config.time.mutant_s,
        )
        for mutant in mutants
    )
    return MutationScore(len(mutants), killed)


def _check_score(score: MutationScore, config: MutationConfig) -> None:
    if not score.mutants:
        raise Rejection("the reference has no mutants", "nothing in it can be changed")
    if not score.killed:
        raise Rejection("the tests kill no mutant", f"{score.mutants} mutants")
    if score.share < config.min_score:
        detail = f"{score.killed} of {score.mutants} mutants killed (mutation.min_score)"
        raise Rejection("the tests kill too few mutants", detail)
