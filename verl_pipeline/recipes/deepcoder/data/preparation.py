"""The preparation: which stages run, in which order, and what each one depends on.

    ingest (per data source) -> language -> tests -> length -> decontaminate -> verify ->
    deduplicate -> difficulty -> split

``deduplicate`` comes after ``verify``, so that the duplicate that stays has a right solution.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.engines.model_folder import (
    PromptTokenizer,
    find_model_folder,
    hash_weights,
)
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.machine import read_package_versions
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.recipes.deepcoder.data.dataset_writer import write_splits
from verl_pipeline.recipes.deepcoder.data.decontamination import (
    EvaluationProblems,
    decontaminate_records,
    load_evaluations,
)
from verl_pipeline.recipes.deepcoder.data.deduplication import deduplicate_records
from verl_pipeline.recipes.deepcoder.data.difficulty import (
    describe_sampling,
    filter_by_pass_rate,
    measure_pass_rates,
    read_pass_rates,
)
from verl_pipeline.recipes.deepcoder.data.ingestion import ingest_rows, locate_files
from verl_pipeline.recipes.deepcoder.data.preparation_config import (
    PrepareConfig,
    select_result_settings,
)
from verl_pipeline.recipes.deepcoder.data.problem_records import Decision, RecordSet
from verl_pipeline.recipes.deepcoder.data.prompt_length import filter_by_length
from verl_pipeline.recipes.deepcoder.data.record_filters import (
    assign_splits,
    filter_by_language,
    filter_by_test_count,
)
from verl_pipeline.recipes.deepcoder.data.row_files import hash_file
from verl_pipeline.recipes.deepcoder.data.stage_cache import StageResult, compute_key
from verl_pipeline.recipes.deepcoder.data.stage_sequence import StageSequence
from verl_pipeline.recipes.deepcoder.data.verification import (
    grade_missing_solutions,
    select_solutions,
    verify_records,
)
from verl_pipeline.sandbox import make_sandbox


@dataclass
class PreparationResult:
    """The result of a preparation.

    Attributes:
        sources: result of the stage ``ingest`` by data source.
        stages: results of the other stages, in order.
        inputs: origin and file hashes by data source.
        warnings: what a reader of the data must know.
        records: records that are left.
        evaluations: evaluation problems that were removed from the data.
        outputs: number of rows and SHA-256 by written file.
        versions: package versions. They are read before a stage loads vLLM, because a CPU build of
            vLLM changes its name when it is loaded.
    """

    sources: dict[str, StageResult]
    stages: list[StageResult]
    inputs: dict[str, dict[str, Any]]
    warnings: list[str]
    records: RecordSet
    evaluations: EvaluationProblems
    outputs: dict[str, Any]
    versions: dict[str, str]


class Preparation:
    """One preparation.

    Args:
        config: its settings.
        console: where results and progress are shown.
    """

    def __init__(self, config: PrepareConfig, console: Console):
        self.config, self.console = config, console
        self.work = Path(config.work) if config.work else Path(config.output) / "work"
        self._finder = DataFinder(Path(config.data) if config.data else None, config.hub)
        self._sequence = StageSequence(self.work, console)
        self._inputs: dict[str, dict[str, Any]] = {}
        self._warnings: list[str] = []

    def run(self) -> PreparationResult:
        """Run all stages and write the parquet files.

        Raises:
            UserError: the settings or the data make it impossible. Finished stages stay cached.
        """
        config, sequence = self.config, self._sequence
        versions = read_package_versions()
        evaluations = load_evaluations(config.contamination, self._finder)
        self._warnings.extend(evaluations.warnings)
        model = resolve_model(config.model)
        self._ingest_sources()
        sequence.apply_stage("language", None, filter_by_language)
        sequence.apply_stage(
            "tests", config.tests, lambda records: filter_by_test_count(records, config.tests)
        )
        self._apply_length(model)
        sequence.apply_stage(
            "decontaminate",
            [
                config.contamination,
                config.near.words,
                config.near.permutations,
                evaluations.list_digests(),
            ],
            lambda records: decontaminate_records(
                records, evaluations, config.contamination, config.near
            ),
        )
        policies = {name: source.without_solution for name, source in config.sources.items()}
        sequence.apply_stage("verify", [config.verify, policies], self._verify_solutions)
        sequence.apply_stage(
            "deduplicate", config.near, lambda records: deduplicate_records(records, config.near)
        )
        if config.difficulty.mode == "given":
            self._apply_given_rates()
        elif config.difficulty.mode == "measure":
            self._apply_measured_rates()
        sequence.apply_stage(
            "split",
            [config.split, config.seed],
            lambda records: assign_splits(records, config.split, config.seed),
        )
        outputs, is_cached = write_splits(
            sequence.records,
            sequence.digest,
            Path(config.output),
            self.work,
            compute_key(select_result_settings(config)),
        )
        self.console.print(f"write: {'cached' if is_cached else 'done'}", highlight=False)
        return PreparationResult(
            sequence.sources,
            sequence.stages,
            self._inputs,
            self._warnings,
            sequence.records,
            evaluations,
            outputs,
            versions,
        )

    def _ingest_sources(self) -> None:
        # All files are located before any is read, so that missing data is an error at once.
        located = {
            name: locate_files(name, source, self._finder)
            for name, source in self.config.sources.items()
        }
        for name, (files, origin) in located.items():
            source = self.config.sources[name]
            hashes = {file.name: hash_file(file) for file in files}
            # The folder of local files is not stored: it has no influence on the result.
            is_local = any(str(file) in origin for file in files)
            self._inputs[name] = {
                "origin": "local files" if is_local else origin,
                "files": hashes,
            }
            self._sequence.ingest_source(
                name,
                [name, source.start, source.end, source.limit],
                sorted(hashes.items()),
                functools.partial(ingest_rows, name, source, files),
            )
        self._sequence.merge_sources()

    def _apply_length(self, model: Path) -> None:
        config, tokenizer = self.config, PromptTokenizer(model, EngineConfig()).tokenizer
        tokenizer_key = compute_key(tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template)
        self._sequence.apply_stage(
            "length",
            [config.length, config.prompt, tokenizer_key],
            lambda records: filter_by_length(records, tokenizer, config.length, config.prompt),
        )

    def _verify_solutions(self, records: RecordSet) -> Iterator[Decision]:
        config, grader = self.config, self.config.grader
        total = sum(len(select_solutions(record, config.verify.solutions)) for record in records)
        with (
            make_sandbox(grader.tier, grader.workers, grader.url) as sandbox,
            self._sequence.make_bars() as progress,
        ):
            sandbox.check_start()
            bar = progress.add_task("official solutions", total=total)
            verdicts = grade_missing_solutions(
                records,
                self.work / "verdicts.jsonl",
                config.verify,
                sandbox,
                lambda: progress.advance(bar),
            )
        return verify_records(records, verdicts, config)

    def _apply_given_rates(self) -> None:
        difficulty = self.config.difficulty
        rates = read_pass_rates(difficulty.rates or "")
        self._sequence.apply_stage(
            "difficulty",
            [difficulty.low, difficulty.high, compute_key(rates)],
            lambda records: filter_by_pass_rate(records, rates, difficulty),
        )

    def _apply_measured_rates(self) -> None:
        config, difficulty = self.config, self.config.difficulty
        model = resolve_model(difficulty.model or config.model)
        weights = hash_weights(model)

        def decide_records(records: RecordSet) -> Iterator[Decision]:
            rates = measure_pass_rates(
                records, config, str(model), weights, self.work, self.console
            )
            return filter_by_pass_rate(records, rates, difficulty)

        bounds = [difficulty.low, difficulty.high]
        self._sequence.apply_stage(
            "difficulty", [bounds, describe_sampling(config, weights)], decide_records
        )
        self._warnings.append(
            f"pass rates come from {difficulty.k} samples per problem: they are multiples of "
            f"{1 / difficulty.k:g}, so a problem near a bound may be on the wrong side of it"
        )


def resolve_model(name: str) -> Path:
    """Return the folder of a model; ``quickstart`` is the model of verl_pipeline.quickstart."""
    return prepare_model() if name == "quickstart" else find_model_folder(name)
