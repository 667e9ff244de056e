"""The generation: which methods run, and the preparation of what they made.

    codeio, families, model, strengthen -> OUTPUT/rows/*.jsonl -> the preparation's stages

Invariants:
* Every candidate of every method is a row, of a problem or of the reason why there is none; the
  preparation's report counts them all.
* A file of rows that already has the right content is not written again, so that the preparation's
  stages stay cached.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.outputs.files import encode_line, write_lines
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.recipes.deepcoder.data.preparation import Preparation, PreparationResult
from verl_pipeline.recipes.deepcoder.data.preparation_config import PrepareConfig
from verl_pipeline.recipes.deepcoder.generation.built_rows import (
    INFRASTRUCTURE,
    Build,
    Proposal,
    build_rows,
)
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, GeneratedRow
from verl_pipeline.recipes.deepcoder.generation.codeio import locate_corpus, read_corpus
from verl_pipeline.recipes.deepcoder.generation.families import list_families
from verl_pipeline.recipes.deepcoder.generation.generation_config import (
    GenerateConfig,
    select_building_settings,
)
from verl_pipeline.recipes.deepcoder.generation.generation_loader import find_rows_file
from verl_pipeline.recipes.deepcoder.generation.model_answers import ModelAnswers
from verl_pipeline.recipes.deepcoder.generation.model_problems import (
    keep_agreed,
    plan_problems,
    propose_problems,
    read_sources,
)
from verl_pipeline.recipes.deepcoder.generation.problem_building import build_problem
from verl_pipeline.recipes.deepcoder.generation.program_runs import Interpreters
from verl_pipeline.recipes.deepcoder.generation.strengthening import (
    KnownProblem,
    describe_strengthening,
    make_strengthening_candidate,
    strengthen_problem,
)
from verl_pipeline.recipes.deepcoder.generation.strengthening_inputs import (
    ask_for_generators,
    read_sample_file,
)
from verl_pipeline.sandbox import Sandbox, make_sandbox

# Another hash seed than the grader's.
_SECOND_HASH_SEED = 1


class Generation:
    """One generation.

    Args:
        config: its settings.
        preparation: settings of the preparation that follows.
        console: where results and progress are shown.

    Attributes:
        rows: of each method that has run.
        warnings: what a reader of the data must know.
    """

    def __init__(self, config: GenerateConfig, preparation: PrepareConfig, console: Console):
        self.config, self.preparation, self.console = config, preparation, console
        self.work = Path(config.work) if config.work else Path(config.output) / "work"
        self.rows: dict[str, list[GeneratedRow]] = {}
        self.warnings: list[str] = []
        self._finder = DataFinder(Path(config.data) if config.data else None, config.hub)

    def run(self) -> PreparationResult:
        """Run all methods, then the preparation.

        Raises:
            UserError: the settings or the data make it impossible. Finished work stays stored.
            SandboxError: no sandbox can be started.
        """
        with open_interpreters(self.config) as interpreters:
            for method in self.config.methods:
                self.rows[method] = self.make_rows(method, interpreters)
                self._write_rows(method)
        return Preparation(self.preparation, self.console).run()

    def make_rows(self, method: str, interpreters: Interpreters) -> list[GeneratedRow]:
        """Run one method; return a row for each of its candidates."""
        proposals: Iterable[Proposal]
        match method:
            case "codeio":
                path, _origin = locate_corpus(self.config.codeio, self._finder)
                proposals = read_corpus(path, self.config.codeio)
            case "families":
                proposals = list_families(self.config.families, self._finder, self.config.seed)
            case "model":
                return self._run_model(interpreters)
            case _:
                return self._run_strengthening(interpreters)
        return self._build_problems(method, proposals, interpreters)

    def _run_model(self, interpreters: Interpreters) -> list[GeneratedRow]:
        config = self.config.model
        seeds = read_sources("model.seeds", config.seeds, self._finder)
        writer = self._open_answers(config.name)
        solver = self._open_answers(config.solver or config.name)
        plans = plan_problems(seeds, config, self.config.seed)
        proposals = propose_problems(plans, writer)
        rows = self._build_problems("model", proposals, interpreters)
        store = self.work / "solver-verdicts.jsonl"
        rows = keep_agreed(rows, solver, config, interpreters.first, store)
        self._warn_of_failures(writer, solver)
        return rows

    def _run_strengthening(self, interpreters: Interpreters) -> list[GeneratedRow]:
        config = self.config.strengthen
        records = read_sources("strengthen.sources", config.sources, self._finder)
        samples = read_sample_file(config.samples)
        generators: dict[str, str] = {}
        if config.generator == "model":
            answers = self._open_answers(self.config.model.name)
            generators = ask_for_generators(records, answers)
            self._warn_of_failures(answers)
        problems = {}
        for record in records:
            problem = KnownProblem(record, samples.get(record.id, ()), generators.get(record.id))
            problems[record.id] = problem
        proposals = [
            (name, make_strengthening_candidate(problem)) for name, problem in problems.items()
        ]

        def build(candidate: Candidate) -> GeneratedRow:
            return strengthen_problem(problems[candidate.id], interpreters, self.config)

        settings = {**select_building_settings(self.config), **describe_strengthening(self.config)}
        return self._build("strengthen", proposals, build, settings)

    def _open_answers(self, model: str) -> ModelAnswers:
        return ModelAnswers(model, self.config.model, self.config.seed, self.work / "answers.jsonl")

    def _warn_of_failures(self, *answers: ModelAnswers) -> None:
        failures = sum((one.failures for one in answers), Counter[str]())
        for reason, count in failures.most_common(1):
            self.warnings.append(
                f"the server failed {failures.total()} requests, most often ({count}): {reason}; "
                "rerun the command, which asks for these only"
            )

    def _build_problems(
        self, method: str, proposals: Iterable[Proposal], interpreters: Interpreters
    ) -> list[GeneratedRow]:
        build = functools.partial(build_problem, interpreters=interpreters, config=self.config)
        return self._build(method, proposals, build, select_building_settings(self.config))

    def _build(
        self, method: str, proposals: Iterable[Proposal], build: Build, settings: Any
    ) -> list[GeneratedRow]:
        bars = make_progress_bars(
            self.console, transient=True, disable=not self.console.is_terminal
        )
        with bars as progress:
            bar = progress.add_task(method, total=None)
            return build_rows(
                proposals,
                build,
                settings,
                self.work / f"built-{method}.jsonl",
                self.config.grader.workers or 1,
                lambda: progress.advance(bar),
            )

    def _write_rows(self, method: str) -> None:
        rows, path = self.rows[method], find_rows_file(self.config, method)
        lines = [dataclasses.asdict(row) for row in rows]
        if not path.is_file() or path.read_bytes() != b"".join(map(encode_line, lines)):
            write_lines(path, lines)
        made = sum(row.skip_reason is None for row in rows)
        self.console.print(
            f"{method}: {made:,} made, {len(rows) - made:,} rejected", highlight=False
        )
        failed = sum((row.skip_reason or "").startswith(INFRASTRUCTURE) for row in rows)
        if failed:
            self.warnings.append(
                f"{method}: {failed} candidates met a failure of the sandbox; rerun the command"
            )


@contextmanager
def open_interpreters(config: GenerateConfig) -> Iterator[Interpreters]:
    """Open the grader's sandbox, and one whose programs have another hash seed.

    A remote sandbox has no setting for the hash seed; both are then the same.

    Raises:
        SandboxError: no sandbox can be started.
    """
    grader = config.grader
    with make_sandbox(grader.tier, grader.workers, grader.url) as first:
        first.check_start()
        if not isinstance(first, Sandbox):
            yield Interpreters(first, first)
            return
        with Sandbox(grader.workers, grader.tier, hash_seed=_SECOND_HASH_SEED) as second:
            yield Interpreters(first, second)
