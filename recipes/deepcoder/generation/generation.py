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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from recipes.deepcoder.data.preparation import Preparation, PreparationResult
from recipes.deepcoder.data.preparation_config import PrepareConfig
from recipes.deepcoder.generation.built_rows import (
    INFRASTRUCTURE,
    Build,
    Proposal,
    build_rows,
)
from recipes.deepcoder.generation.candidates import GeneratedRow
from recipes.deepcoder.generation.codeio import locate_corpus, read_corpus
from recipes.deepcoder.generation.generation_config import (
    GenerateConfig,
    select_building_settings,
)
from recipes.deepcoder.generation.generation_loader import find_rows_file
from recipes.deepcoder.generation.problem_building import Interpreters, build_problem
from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.outputs.files import encode_line, write_lines
from verl_pipeline.progress import make_progress_bars
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
                self.rows[method] = self._run_method(method, interpreters)
                self._write_rows(method)
        return Preparation(self.preparation, self.console).run()

    def _run_method(self, method: str, interpreters: Interpreters) -> list[GeneratedRow]:
        path, origin = locate_corpus(self.config.codeio, self._finder)
        proposals = read_corpus(path, self.config.codeio)
        build = functools.partial(build_problem, interpreters=interpreters, config=self.config)
        return self._build(method, proposals, build)

    def _build(
        self, method: str, proposals: Iterable[Proposal], build: Build
    ) -> list[GeneratedRow]:
        bars = make_progress_bars(
            self.console, transient=True, disable=not self.console.is_terminal
        )
        with bars as progress:
            bar = progress.add_task(method, total=None)
            return build_rows(
                proposals,
                build,
                select_building_settings(self.config),
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
