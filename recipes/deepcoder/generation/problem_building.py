"""Turns a candidate into a verified problem: inputs, outputs, determinism, strength of the tests.

Invariants:
* Generator and reference run twice, in fresh processes of two interpreters with different hash
  seeds, the reference the second time in reverse order: what depends on chance, on the order of a
  set or on earlier calls answers differently.
* No output becomes a test that a right program may miss by a rounding error.
* The reference passes all tests in the grader that training uses, and they reject at least
  ``mutation.min_score`` of its mutants.
* A failure of the sandbox is an error, never a rejection.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recipes.deepcoder.generation.candidates import Candidate, GeneratedRow, Rejection
from recipes.deepcoder.generation.clock_use import find_clock_use
from recipes.deepcoder.generation.generation_config import (
    GenerateConfig,
    MutationConfig,
    TestsConfig,
    TimeConfig,
)
from recipes.deepcoder.generation.mutants import make_mutants
from recipes.deepcoder.generation.output_rounding import (
    ROUNDING_NOTE,
    is_sensitive_to_rounding,
    write_rounding,
)
from recipes.deepcoder.generation.program_runs import (
    Answer,
    ProgramInput,
    answer_inputs,
    answers_alike,
    draw_inputs,
)
from verl_pipeline.grading import Problem, Verdict, grade
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.grading.readers.case_values import restore_integer_keys
from verl_pipeline.sandbox import SandboxError

# Reader of the tests of generated problems.
READER = "taco"


@dataclass(frozen=True)
class Interpreters:
    """Two sandboxes whose programs have different hash seeds; the first one's is the grader's."""

    first: AnySandbox
    second: AnySandbox


@dataclass(frozen=True)
class MutationScore:
    """How many mutants there were, and how many of them the tests rejected."""

    mutants: int
    killed: int

    @property
    def share(self) -> float:
        """Killed share, from 0 to 1; 0 without mutants."""
        return self.killed / self.mutants if self.mutants else 0.0


@dataclass(frozen=True)
class TestPair:
    """An input and the reference's output."""

    input: ProgramInput
    output: Any


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
    pairs = _select_tests(candidate, inputs, answers, config.tests)
    problem = make_problem(candidate.id, pairs, candidate.entry_point)
    _check_reference(problem, candidate.program + candidate.epilogue, interpreters.first)
    score = score_tests(candidate, pairs, interpreters.first, config)
    _check_score(score, config.mutation)
    entry_point = candidate.entry_point
    if candidate.stdin_main:
        entry_point = None
        pairs = [_print_pair(pair) for pair in pairs]
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


def _print_pair(pair: TestPair) -> TestPair:
    """Turn a call into lines of JSON on standard input, and one on standard output."""
    lines = "".join(f"{json.dumps(argument)}\n" for argument in pair.input)
    return TestPair(lines, f"{json.dumps(pair.output, sort_keys=True)}\n")


def draw_distinct_inputs(
    candidate: Candidate, interpreters: Interpreters, config: GenerateConfig
) -> list[ProgramInput]:
    """Return the distinct inputs that a candidate's generator draws, in order.

    Raises:
        Rejection: it fails, never ends, or draws others the second time.
    """
    seeds = [config.seed * 100_003 + number for number in range(config.tests.draws)]
    drawn, again = (
        draw_inputs(sandbox, candidate.generator, seeds, config.time.generator_s)
        for sandbox in (interpreters.first, interpreters.second)
    )
    if slow := next((answer for answer in (*drawn, *again) if answer.is_slow), None):
        raise Rejection("the generator does not end in time", slow.failure)
    if [answer.value for answer in drawn] != [answer.value for answer in again]:
        raise Rejection("the generator is not deterministic", "two runs with one seed differ")
    inputs: dict[str, ProgramInput] = {}
    failures: Counter[str] = Counter()
    for answer in drawn:
        if answer.failure:
            failures[answer.failure] += 1
            continue
        shaped = shape_input(candidate, answer.value)
        text = json.dumps(shaped)
        if len(text) <= config.tests.characters:
            inputs.setdefault(text, shaped)
        else:
            failures[f"an input of more than {config.tests.characters} characters"] += 1
    if len(inputs) < config.tests.min:
        raise Rejection(
            "the generator gives too few inputs",
            f"{len(inputs)} distinct of {len(seeds)}{_describe_failures(failures)}",
        )
    return list(inputs.values())


def shape_input(candidate: Candidate, value: Any) -> ProgramInput:
    """Turn what a generator returned into arguments, or into text on standard input.

    Raises:
        Rejection: it is neither.
    """
    if isinstance(value, dict) and candidate.parameters:
        names = [name for name in candidate.parameters if name in value]
        needed = candidate.parameters[: len(candidate.parameters) - candidate.optional]
        if (
            len(names) != len(value)
            or names != list(candidate.parameters[: len(names)])
            or not set(needed) <= set(names)
        ):
            raise Rejection("the generator returns other arguments", ", ".join(map(str, value)))
        value = [value[name] for name in names]
    if candidate.entry_point is None:
        if not isinstance(value, str):
            raise Rejection("the generator returns no text", type(value).__name__)
        return value if value.endswith("\n") else f"{value}\n"
    if not isinstance(value, list):
        raise Rejection("the generator returns no arguments", type(value).__name__)
    # As the reader of the tests does, so that the reference sees what the tests hold.
    return tuple(map(restore_integer_keys, value))


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


def _select_tests(
    candidate: Candidate,
    inputs: Sequence[ProgramInput],
    answers: Sequence[Answer],
    config: TestsConfig,
) -> list[TestPair]:
    """Choose tests with different outputs.

    Raises:
        Rejection: there are too few.
    """
    pairs = [TestPair(*pair) for pair in candidate.given]
    known = {json.dumps(pair.input) for pair in pairs}
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for given, answer in zip(inputs, answers, strict=True):
        output = json.dumps(answer.value)
        if answer.failure:
            failures[answer.failure] += 1
        elif is_sensitive_to_rounding(answer.value):
            failures["an output that a rounding error changes"] += 1
        elif len(output) > config.characters:
            failures[f"an output of more than {config.characters} characters"] += 1
        elif counts[output] >= config.repeats:
            failures["an output that other tests have"] += 1
        elif json.dumps(given) not in known and len(pairs) < config.keep:
            counts[output] += 1
            pairs.append(TestPair(given, answer.value))
    if len(pairs) < config.min:
        raise Rejection(
            "too few tests",
            f"{len(pairs)} of {len(inputs)} inputs{_describe_failures(failures)}",
        )
    distinct = len({json.dumps(pair.output) for pair in pairs})
    if distinct < config.distinct:
        raise Rejection("too few different outputs", f"{distinct} in {len(pairs)} tests")
    return pairs


def _describe_failures(failures: Counter[str]) -> str:
    return "".join(f"; {count} times: {text}" for text, count in failures.most_common(1))


def write_tests(pairs: Sequence[TestPair], entry_point: str | None) -> dict[str, Any]:
    """Return tests as TACO has them."""
    inputs = [pair.input if entry_point is None else list(pair.input) for pair in pairs]
    tests = {"inputs": inputs, "outputs": [pair.output for pair in pairs]}
    return tests if entry_point is None else {**tests, "fn_name": entry_point}


def make_problem(name: str, pairs: Sequence[TestPair], entry_point: str | None) -> Problem:
    """Make the problem that training will grade.

    Raises:
        Rejection: the reader of training data refuses the tests.
    """
    try:
        return read_problem(READER, json.dumps(write_tests(pairs, entry_point)), name=name)
    except BadRow as error:
        raise Rejection("the tests cannot be read", str(error)) from error


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
