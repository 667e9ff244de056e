"""Problems that a model writes from seed problems, and solutions that it writes independently.

Invariants:
* What is asked depends only on the settings and the seeds; answers are stored.
* Solvers see the statement, never the reference, the generator or a test.
* A problem stays if at least ``model.agree`` solvers pass all of its tests, most of which are
  generated inputs with the reference's outputs.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.grading import Verdict
from verl_pipeline.grading.grading_files import (
    CandidateSolution,
    grade_solutions,
    select_usable_verdicts,
)
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.grading.readers import read_problem
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.recipes.deepcoder.data.ingestion import ingest_rows, locate_files
from verl_pipeline.recipes.deepcoder.data.preparation_config import PromptConfig, SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.data.prompt_length import build_prompt
from verl_pipeline.recipes.deepcoder.generation.built_rows import Proposal
from verl_pipeline.recipes.deepcoder.generation.candidates import GeneratedRow, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import ModelConfig
from verl_pipeline.recipes.deepcoder.generation.model_answers import ModelAnswers, ModelRequest
from verl_pipeline.recipes.deepcoder.generation.model_prompts import read_proposal, write_request
from verl_pipeline.recipes.deepcoder.generation.test_pairs import READER

# Reason of a row that lacks an answer of the server; the next call asks again.
NO_ANSWER = "the server gave no answer"


@dataclass(frozen=True)
class Plan:
    """One problem that is asked for: its id, the way, and the seed problems."""

    id: str
    way: str
    seeds: tuple[ProblemRecord, ...]


def read_sources(
    setting: str, sources: Mapping[str, SourceConfig], finder: DataFinder
) -> list[ProblemRecord]:
    """Return the problems of data sources.

    Args:
        setting: name of the setting that names them, for errors.

    Raises:
        DataNotFound: a source's files were not found.
        BadSetting: there is no problem.
    """
    records: list[ProblemRecord] = []
    for name, source in sources.items():
        files, _origin = locate_files(name, source, finder)
        rows = ingest_rows(name, source, files, lambda: None)
        records += [row for row in rows if isinstance(row, ProblemRecord)]
    if not records:
        raise BadSetting(f"{setting}: no problem in {', '.join(sources) or 'no source'}")
    return records


def plan_problems(seeds: Sequence[ProblemRecord], config: ModelConfig, seed: int) -> list[Plan]:
    """Choose the way and the seed problems of each problem that is asked for."""
    plans = []
    for number in range(config.problems):
        way = config.ways[number % len(config.ways)]
        chance = random.Random(f"plan {seed} {number}")
        count = min(2 if way == "compose" else 1, len(seeds))
        plans.append(Plan(f"{way}-{number:05d}", way, tuple(chance.sample(list(seeds), count))))
    return plans


def propose_problems(plans: Sequence[Plan], answers: ModelAnswers) -> list[Proposal]:
    """Ask for the problems; return the candidates, or why there are none."""
    requests = [
        ModelRequest(plan.id, 0, write_request(plan.way, [one.question for one in plan.seeds]))
        for plan in plans
    ]
    proposals: list[Proposal] = []
    for plan, answer in zip(plans, answers.ask(requests), strict=True):
        try:
            if answer is None:
                raise Rejection(NO_ANSWER, "asked for a problem")
            seed_ids = [one.id for one in plan.seeds]
            proposals.append((plan.id, read_proposal(plan.id, answer, plan.way, seed_ids)))
        except Rejection as rejection:
            proposals.append((plan.id, rejection))
    return proposals


def keep_agreed(
    rows: Sequence[GeneratedRow],
    answers: ModelAnswers,
    config: ModelConfig,
    sandbox: AnySandbox,
    store: Path,
) -> list[GeneratedRow]:
    """Ask solvers for each problem; reject those on which too few agree with the reference.

    Agreeing solutions become further solutions of the row.

    Args:
        store: file of the solutions' verdicts.
    """
    made = [row for row in rows if row.skip_reason is None]
    requests = [
        ModelRequest(f"solve {row.id}", sample, tuple(_write_solver_prompt(row)))
        for row in made
        for sample in range(config.solvers)
    ]
    texts = answers.ask(requests)
    solutions = {
        (request.id, request.sample): _read_solution(row, text)
        for row, request, text in zip(
            [row for row in made for _ in range(config.solvers)], requests, texts, strict=True
        )
    }
    verdicts = _grade(solutions.values(), sandbox, store)
    decided = {}
    for row in made:
        mine = [solutions[f"solve {row.id}", sample] for sample in range(config.solvers)]
        decided[row.id] = _decide(row, mine, verdicts, config)
    return [decided.get(row.id, row) for row in rows]


def _write_solver_prompt(row: GeneratedRow) -> list[Mapping[str, str]]:
    function = row.tests.get("fn_name")
    record = ProblemRecord(
        id=row.id,
        source="model_made",
        reader=READER,
        question=row.question,
        tests="",
        test_count=len(row.tests["inputs"]),
        calls=(function,) if function else (),
        origin="",
        solutions=row.solutions,
    )
    return build_prompt(record, PromptConfig())


def _read_solution(row: GeneratedRow, text: str | None) -> CandidateSolution | None:
    if text is None:
        return None
    problem = read_problem(READER, dict(row.tests), name=row.id)
    return CandidateSolution(0, row.id, extract_last_program(text) or "", False, problem)


def _grade(solutions, sandbox: AnySandbox, store: Path) -> dict[str, Verdict]:
    """Return the verdict of each solution by digest; those in ``store`` are not graded again."""
    with closing(JsonLinesFile(store)) as file:
        usable = select_usable_verdicts(file.read_rows(), all_tests=False)
        verdicts = {digest: Verdict(row["verdict"]) for digest, row in usable.items()}
        missing = {
            one.digest: one for one in solutions if one and one.text and one.digest not in verdicts
        }
        for row in grade_solutions(missing.values(), sandbox, file):
            verdicts[row["digest"]] = Verdict(row["verdict"])
    return verdicts


def _decide(
    row: GeneratedRow,
    solutions: Sequence[CandidateSolution | None],
    verdicts: Mapping[str, Verdict],
    config: ModelConfig,
) -> GeneratedRow:
    given = [solution for solution in solutions if solution is not None]
    right = [
        solution.text for solution in given if verdicts.get(solution.digest) is Verdict.ACCEPTED
    ]
    unknown = (
        len(solutions)
        - len(given)
        + sum(verdicts.get(solution.digest) is Verdict.INFRASTRUCTURE for solution in given)
    )
    if len(right) >= config.agree:
        notes = {**row.generation, "solvers": len(given), "agreeing": len(right)}
        distinct = tuple(dict.fromkeys((*row.solutions, *right)))
        return replace(row, solutions=distinct, generation=notes)
    if len(right) + unknown >= config.agree:
        rejection = Rejection(NO_ANSWER, f"{unknown} of {len(solutions)} solutions")
    else:
        detail = f"{len(right)} of {len(given)} agree, {config.agree} needed (model.agree)"
        rejection = Rejection("solvers disagree with the reference", detail)
    return GeneratedRow.from_rejection(row.id, rejection)
