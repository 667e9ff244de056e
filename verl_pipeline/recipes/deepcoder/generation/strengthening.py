"""Strengthens the tests of known problems: adds those that newly reject a wrong program.

A new input's output is what the right programs agree on: official solutions, and samples of a model
that pass the known tests. A test is kept only if a wrong program that passed all tests so far fails
it: a mutant of an official solution, or a sample with another answer than the right programs.

Invariants:
* No known test is lost or changed.
* All official solutions pass every test that is added. If there are more right programs than
  opinions are needed, one has no vote; that it passes as well is measured, not arranged.
* The rows depend only on problems, samples, generators' sources and settings.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from verl_pipeline.grading.output_comparison import is_matching_text, is_matching_value
from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.data.verification import select_solutions
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, GeneratedRow, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.generation.input_derivation import derive_inputs
from verl_pipeline.recipes.deepcoder.generation.input_drawing import draw_distinct_inputs
from verl_pipeline.recipes.deepcoder.generation.known_tests import KnownTests, read_known_tests
from verl_pipeline.recipes.deepcoder.generation.mutants import make_mutants
from verl_pipeline.recipes.deepcoder.generation.output_rounding import is_sensitive_to_rounding
from verl_pipeline.recipes.deepcoder.generation.program_runs import (
    Answer,
    Interpreters,
    ProgramInput,
    answer_inputs,
    answers_alike,
)
from verl_pipeline.recipes.deepcoder.generation.test_pairs import TestPair, write_tests

# Official solutions that are run.
MAX_OFFICIAL = 8


@dataclass(frozen=True)
class KnownProblem:
    """A problem that is to be strengthened.

    Attributes:
        record: the problem.
        samples: programs that a model wrote for it.
        generator: program with ``generate_inputs(rng)`` that a model wrote; None: inputs are
            derived from the known ones; empty: the model's answer has none.
    """

    record: ProblemRecord
    samples: tuple[str, ...] = ()
    generator: str | None = None


def make_strengthening_candidate(problem: KnownProblem) -> Candidate:
    """Return a candidate that stands for a known problem, so that results are stored by it."""
    record = problem.record
    return Candidate(
        id=record.id,
        question=record.question,
        program="\n".join(select_solutions(record, MAX_OFFICIAL)),
        generator=problem.generator or "",
        entry_point=None,
        given=((record.tests, None),),
        notes={"samples": list(problem.samples)},
    )


def strengthen_problem(
    problem: KnownProblem, interpreters: Interpreters, config: GenerateConfig
) -> GeneratedRow:
    """Return the row of a problem with its known tests and those that were added.

    Raises:
        Rejection: it has no solution or tests to begin with.
        SandboxError: the sandbox failed.
    """
    record, settings = problem.record, config.strengthen
    official = select_solutions(record, MAX_OFFICIAL)
    if not official:
        raise Rejection("no official solution", f"{len(record.solutions)} listed")
    if problem.generator == "":
        raise Rejection("the model gave no generator")
    known = read_known_tests(record.read_problem(), official)
    runner = _Runner(known, interpreters.first, config)
    official = [program for program in official if runner.passes(program, known.pairs)]
    if not official:
        raise Rejection("no official solution passes the known tests", "as pairs")
    inputs = _list_inputs(problem, known, interpreters, config)
    samples = [program for program in problem.samples if runner.passes(program, known.pairs)]
    held_out = official.pop() if len(official) > settings.opinions else None
    pairs = _agree(official, samples, inputs, runner, interpreters, settings.opinions)
    disagreeing = [program for program in samples if not runner.passes(program, pairs)]
    mutants = make_mutants(
        official[0],
        [known.entry_point] if known.entry_point else [],
        settings.mutants,
        f"{config.seed} {record.id}",
    )
    surviving = [program for program in mutants if runner.passes(program, known.pairs)]
    added, rejected = _choose_tests([*surviving, *disagreeing], pairs, runner, settings.keep)
    right = [*official, *(program for program in samples if program not in disagreeing)]
    right += [held_out] if held_out else []
    refused = [program for program in right if not runner.passes(program, added)]
    if held_out in refused:
        raise Rejection("right programs disagree", "the one without a vote fails an added test")
    return GeneratedRow(
        record.id,
        record.question,
        _write(known, added),
        tuple([*official, *([held_out] if held_out else [])]),
        record.difficulty,
        {
            "method": "strengthen",
            "mutants": len(mutants),
            "killed": len(mutants) - len(surviving) + len(rejected & set(surviving)),
            "killed_before": len(mutants) - len(surviving),
            "mutation_score": round(
                (len(mutants) - len(surviving) + len(rejected & set(surviving)))
                / max(1, len(mutants)),
                4,
            ),
            "inputs": len(inputs),
            "agreed": len(pairs),
            "tests": len(known.pairs) + len(added),
            "added": len(added),
            "samples_rejected": len(rejected & set(disagreeing)),
            "right": len(right),
            "right_refused": len(refused),
            "held_out": int(held_out is not None),
        },
    )


class _Runner:
    """Runs programs on tests of one problem."""

    def __init__(self, known: KnownTests, sandbox: AnySandbox, config: GenerateConfig):
        self.entry_point = known.entry_point
        self.sandbox, self.config = sandbox, config

    def passes(self, program: str, pairs: Sequence[TestPair]) -> bool:
        return answers_alike(
            self.sandbox,
            program,
            self.entry_point,
            [pair.input for pair in pairs],
            [pair.output for pair in pairs],
            self.config.time.mutant_s,
        )

    def answer(
        self, program: str, inputs: Sequence[ProgramInput], sandbox: AnySandbox | None = None
    ) -> list[Answer]:
        time_s = self.config.time.reference_s
        return answer_inputs(sandbox or self.sandbox, program, self.entry_point, inputs, time_s)

    def is_same(self, answer: Answer, output: Any) -> bool:
        if answer.failure:
            return False
        compare = is_matching_text if self.entry_point is None else is_matching_value
        return compare(answer.value, output)


def _list_inputs(
    problem: KnownProblem, known: KnownTests, interpreters: Interpreters, config: GenerateConfig
) -> list[ProgramInput]:
    settings, record = config.strengthen, problem.record
    if problem.generator is None:
        pairs = [pair.input for pair in known.pairs]
        inputs = derive_inputs(pairs, settings.draws, f"{config.seed} {record.id}")
    else:
        candidate = Candidate(record.id, record.question, "", problem.generator, known.entry_point)
        inputs = draw_distinct_inputs(candidate, interpreters, config)[: settings.draws]
    seen = {json.dumps(pair.input) for pair in known.pairs}
    longest = config.tests.characters
    texts = [(json.dumps(one), one) for one in inputs]
    return [one for text, one in texts if text not in seen and len(text) <= longest]


def _agree(
    official: Sequence[str],
    samples: Sequence[str],
    inputs: Sequence[ProgramInput],
    runner: _Runner,
    interpreters: Interpreters,
    opinions: int,
) -> list[TestPair]:
    """Return the inputs on which the right programs agree, with the output."""
    if not inputs:
        return []
    first = runner.answer(official[0], inputs)
    again = runner.answer(official[0], inputs[::-1], interpreters.second)[::-1]
    others = [runner.answer(program, inputs) for program in official[1:]]
    votes = [runner.answer(program, inputs) for program in samples]
    pairs = []
    for number, given in enumerate(inputs):
        output = first[number].value
        if (
            first[number].failure
            or not runner.is_same(again[number], output)
            or is_sensitive_to_rounding(output)
            or len(json.dumps(output)) > runner.config.tests.characters
            or not all(runner.is_same(answers[number], output) for answers in others)
        ):
            continue
        agreeing = sum(runner.is_same(answers[number], output) for answers in votes)
        if (
            len(official) + agreeing >= opinions
            and len(official) + agreeing > len(votes) - agreeing
        ):
            pairs.append(TestPair(given, output))
    return pairs


def _choose_tests(
    wrong: Sequence[str], pairs: Sequence[TestPair], runner: _Runner, keep: int
) -> tuple[list[TestPair], set[str]]:
    """Choose tests, the one that rejects most of the programs left first.

    Returns:
        The tests, and the programs that they reject.
    """
    inputs = [pair.input for pair in pairs]
    failed: dict[str, set[int]] = {}
    for program in wrong:
        # Most programs that pass the known tests pass these as well: one process shows that.
        if pairs and not runner.passes(program, pairs):
            answers = runner.answer(program, inputs)
            failed[program] = {
                number
                for number, (answer, pair) in enumerate(zip(answers, pairs, strict=True))
                if not runner.is_same(answer, pair.output)
            }
    chosen: list[int] = []
    left = {program: numbers for program, numbers in failed.items() if numbers}
    while left and len(chosen) < keep:
        best = max(range(len(pairs)), key=lambda at: (sum(at in one for one in left.values()), -at))
        chosen.append(best)
        left = {program: numbers for program, numbers in left.items() if best not in numbers}
    rejected = {program for program, numbers in failed.items() if numbers & set(chosen)}
    return [pairs[number] for number in sorted(chosen)], rejected


def _write(known: KnownTests, added: Sequence[TestPair]) -> dict[str, Any]:
    pairs = [*known.pairs, *added]
    if known.is_boxed:
        pairs = [TestPair(pair.input, [pair.output]) for pair in pairs]
    return write_tests(pairs, known.entry_point)


def describe_strengthening(config: GenerateConfig) -> dict[str, Any]:
    """Return the settings that decide about a strengthened problem."""
    return asdict(config.strengthen) | {"sources": None, "samples": None}
