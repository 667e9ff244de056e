"""Runs stages one after the other over the records that are left, each through the stage cache.

Invariants:
* The result of a stage depends only on its settings and its input.
* If a stage leaves no problem, the preparation ends with an error that names the stage and its
  setting.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    ProblemRecord,
    RecordSet,
    RemovedRow,
)
from verl_pipeline.recipes.deepcoder.data.stage_cache import (
    StageResult,
    compute_key,
    read_kept_fields,
    run_stage,
)

# Raise a stage's version when its code changes the result for the same settings.
VERSIONS = {
    "ingest": 1,
    "language": 1,
    "tests": 1,
    "length": 1,
    "decontaminate": 2,
    "verify": 1,
    "deduplicate": 2,
    "difficulty": 1,
    "split": 1,
}
# The settings to change if a stage leaves no problem.
_RESPONSIBLE_SETTINGS = {
    "ingest": "sources: their windows and files",
    "language": "sources: none of their rows is Python",
    "tests": "tests.min",
    "length": "length.max_tokens",
    "decontaminate": "contamination.tasks: all problems of the sources are theirs",
    "verify": "verify.without_solution, verify.on_disagreement",
    "deduplicate": "near.threshold",
    "difficulty": "difficulty.low, difficulty.high, or another model",
    "split": "split.heldout",
}


class EmptyStageError(UserError):
    """A stage has removed all records."""


class StageSequence:
    """The stages that have run, and the records that they left.

    Args:
        work: folder of the stage cache.
        console: where results and progress are shown.

    Attributes:
        sources: result of the stage ``ingest`` by data source.
        stages: results of the other stages, in order.
        records: records that are left.
        digest: digest of these records.
    """

    def __init__(self, work: Path, console: Console):
        self._work, self._console = work, console
        self.sources: dict[str, StageResult] = {}
        self.stages: list[StageResult] = []
        self.records = RecordSet([], {})
        self.digest = ""

    def ingest_source(
        self,
        name: str,
        settings: Any,
        file_hashes: Any,
        read_rows: Callable[[Callable[[], None]], Iterable[ProblemRecord | RemovedRow]],
    ) -> None:
        """Run the stage ``ingest`` for one data source.

        Args:
            name: name of the data source.
            settings: settings that the result depends on.
            file_hashes: names and hashes of the source's files.
            read_rows: yields records and removed rows; its argument is to be called once per row.
        """

        def read_with_progress() -> Iterator[ProblemRecord | RemovedRow]:
            with self.make_bars() as progress:
                bar = progress.add_task(f"ingest {name}", total=None)
                yield from read_rows(lambda: progress.advance(bar))

        result = run_stage(
            self._work,
            f"ingest-{name}",
            VERSIONS["ingest"],
            settings,
            file_hashes,
            read_with_progress,
        )
        self.sources[name] = result
        self._print_result(result)

    def merge_sources(self) -> None:
        """Take the records of all data sources, once they are ingested.

        Raises:
            EmptyStageError: there are none.
        """
        results = self.sources.values()
        fields: dict[str, dict[str, Any]] = {
            row["id"]: {} for result in results for row in read_records(result.kept_file)
        }
        self.records = RecordSet([result.kept_file for result in results], fields)
        self.digest = compute_key([result.digest for result in results])
        self._check_not_empty("ingest")

    def apply_stage(
        self, name: str, settings: Any, decide: Callable[[RecordSet], Iterator[Decision]]
    ) -> None:
        """Run one stage over the records that are left.

        Args:
            name: name of the stage.
            settings: settings that the result depends on.
            decide: yields a decision for each record, in order.

        Raises:
            EmptyStageError: the stage removed all records.
        """
        records = self.records

        def decide_with_progress() -> Iterator[Decision]:
            # Before the bar: grading and sampling happen in this call, with bars of their own.
            decisions = decide(records)
            with self.make_bars() as progress:
                bar = progress.add_task(name, total=len(records))
                for decision in decisions:
                    yield decision
                    progress.advance(bar)

        result = run_stage(
            self._work, name, VERSIONS[name], settings, self.digest, decide_with_progress
        )
        new_fields = read_kept_fields(result)
        self.records = RecordSet(
            records.files,
            {
                record_id: {**records.fields_by_id[record_id], **fields}
                for record_id, fields in new_fields.items()
            },
        )
        self.digest = compute_key([self.digest, result.digest])
        self.stages.append(result)
        self._print_result(result)
        self._check_not_empty(name)

    def make_bars(self) -> Progress:
        """Make progress bars that show nothing unless the console is a terminal."""
        return make_progress_bars(
            self._console, transient=True, disable=not self._console.is_terminal
        )

    def _print_result(self, result: StageResult) -> None:
        state = "cached" if result.is_cached else "done"
        note = "" if result.is_complete else "; infrastructure failed, the next run tries again"
        self._console.print(
            f"{result.stage}: {state}, {result.kept_count:,} kept, {result.removed_count:,} "
            f"removed{note}",
            highlight=False,
            markup=False,
        )

    def _check_not_empty(self, stage: str) -> None:
        if len(self.records):
            return
        results = self.stages[-1:] if self.stages else list(self.sources.values())
        removals = itertools.chain.from_iterable(result.read_removals() for result in results)
        first = next(removals, None)
        example = f"; the first: {first.id}: {first.reason} ({first.detail})" if first else ""
        raise EmptyStageError(
            f"stage {stage} leaves no problem; check {_RESPONSIBLE_SETTINGS[stage]}{example}"
        )
