"""The stages in their order, and what each depends on.

    ingest (a source) -> language -> tests -> length -> decontaminate -> verify -> deduplicate ->
    difficulty -> split

Twins are removed after ``verify``, so that the one that stays is one that is right.

Invariants:
* A stage depends on its own settings and on what it is given, on nothing else; what is done is not
  done again.
* A stage that leaves nothing ends the preparation with its name and its setting.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from recipes.deepcoder.data import (
    deduplication as deduplicate,
)
from recipes.deepcoder.data import (
    difficulty,
)
from recipes.deepcoder.data import (
    ingestion as ingest,
)
from recipes.deepcoder.data import (
    prompt_length as length,
)
from recipes.deepcoder.data import (
    record_filters as filters,
)
from recipes.deepcoder.data import (
    stage_cache as cache,
)
from recipes.deepcoder.data import (
    verification as verify,
)
from recipes.deepcoder.data.dataset_writer import write
from recipes.deepcoder.data.decontamination import Evaluations, decontaminate, load_evaluations
from recipes.deepcoder.data.preparation_config import PrepareConfig
from recipes.deepcoder.data.problem_records import Decision, Record, Records, Removed
from recipes.deepcoder.data.row_files import sha256
from recipes.deepcoder.data.stage_cache import Done
from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.data import Finder
from verl_pipeline.evaluation.engines.tokens import Prompts, model_folder, weights_hash
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.machine import read_package_versions
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.sandbox import sandbox_of

# Raised when a stage's outcome changes with the same settings.
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
# What to change where a stage leaves nothing.
_SETTINGS = {
    "ingest": "sources: their windows and files",
    "language": "sources: none of their rows is Python",
    "tests": "tests.min",
    "length": "length.max_tokens",
    "decontaminate": "contamination.tasks: the sources are what they ask",
    "verify": "verify.without_solution, verify.on_disagreement",
    "deduplicate": "near.threshold",
    "difficulty": "difficulty.low, difficulty.high, or another model",
    "split": "split.heldout",
}


class NothingLeft(Refused):
    """A stage has removed all records."""


@dataclass
class Outcome:
    """What the stages have done.

    Attributes:
        sources: of each source, its stage ``ingest``.
        stages: the others, in order.
        inputs: of each source, where it is from, and files with their hashes.
        warnings: what a reader of the data must know.
        records: those that are left.
        evaluations: what was decontaminated against.
        outputs: of each file written, its rows and SHA-256.
        versions: of packages, as they are before a stage loads vLLM: a CPU build is then known by
            another name.
    """

    sources: dict[str, Done] = field(default_factory=dict)
    stages: list[Done] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    records: Records = field(default_factory=lambda: Records([], {}))
    evaluations: Evaluations = field(default_factory=lambda: Evaluations({}, ()))
    outputs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=read_package_versions)


class Pipeline:
    """One preparation.

    Raises:
        Refused: it cannot be; what is done is kept.
    """

    def __init__(self, config: PrepareConfig, console: Console):
        self.config, self.console = config, console
        self.work = Path(config.work) if config.work else Path(config.output) / "work"
        self.finder = Finder(Path(config.data) if config.data else None, config.hub)
        self.outcome = Outcome()
        self._digest = ""

    def run(self) -> Outcome:
        """All stages."""
        config = self.config
        evaluations = load_evaluations(config.contamination, self.finder)
        self.outcome.evaluations = evaluations
        self.outcome.warnings.extend(evaluations.warnings)
        folder = model_of(config.model)
        self._ingest()
        self._stage("language", None, filters.language)
        self._stage("tests", config.tests, lambda records: filters.tests(records, config.tests))
        prompts = Prompts(folder, EngineConfig())
        tokens = cache.key_of(
            prompts.tokenizer.backend_tokenizer.to_str(), prompts.tokenizer.chat_template
        )
        self._stage(
            "length",
            [config.length, config.prompt, tokens],
            lambda records: length.length(records, prompts.tokenizer, config.length, config.prompt),
        )
        self._stage(
            "decontaminate",
            [
                config.contamination,
                config.near.words,
                config.near.permutations,
                evaluations.settings(),
            ],
            lambda records: decontaminate(records, evaluations, config.contamination, config.near),
        )
        without = {name: source.without_solution for name, source in config.sources.items()}
        self._stage("verify", [config.verify, without], self._verify)
        self._stage(
            "deduplicate",
            config.near,
            lambda records: deduplicate.deduplicate(records, config.near),
        )
        if config.difficulty.mode != "none":
            self._difficulty()
        self._stage(
            "split",
            [config.split, config.seed],
            lambda records: filters.split(records, config.split, config.seed),
        )
        settings = cache.key_of(settings_of(config))
        output = Path(config.output)
        self.outcome.outputs, cached = write(
            self.outcome.records, self._digest, output, self.work, settings
        )
        self.console.print(f"write: {'cached' if cached else 'done'}", highlight=False)
        return self.outcome

    def _ingest(self) -> None:
        found = {
            name: ingest.locate(name, source, self.finder)
            for name, source in self.config.sources.items()
        }
        for name, (files, origin) in found.items():
            source, hashes = self.config.sources[name], {file.name: sha256(file) for file in files}
            local = any(str(file) in origin for file in files)  # where they lie changes nothing
            self.outcome.inputs[name] = {
                "origin": "local files" if local else origin,
                "files": hashes,
            }
            settings = [name, source.start, source.end, source.limit]

            def rows(name: str = name, files: list[Path] = files) -> Iterator[Record | Removed]:
                with self._bars() as progress:
                    bar = progress.add_task(f"ingest {name}", total=None)
                    source = self.config.sources[name]
                    yield from ingest.ingest(name, source, files, lambda: progress.advance(bar))

            done = cache.run_stage(
                self.work,
                f"ingest-{name}",
                VERSIONS["ingest"],
                settings,
                sorted(hashes.items()),
                rows,
            )
            self.outcome.sources[name] = done
            self._say(done)
        sources = self.outcome.sources.values()
        kept: dict[str, dict[str, Any]] = {
            row["id"]: {} for done in sources for row in cache.read_lines(done.file)
        }
        self.outcome.records = Records([done.file for done in sources], kept)
        self._digest = cache.key_of([done.digest for done in sources])
        self._check_left("ingest")

    def _stage(
        self, name: str, settings: Any, decide: Callable[[Records], Iterator[Decision]]
    ) -> None:
        records = self.outcome.records

        def rows() -> Iterator[Decision]:
            decided = decide(records)  # grading and sampling happen here, with bars of their own
            with self._bars() as progress:
                bar = progress.add_task(name, total=len(records))
                for decision in decided:
                    yield decision
                    progress.advance(bar)

        done = cache.run_stage(self.work, name, VERSIONS[name], settings, self._digest, rows)
        decided = cache.decisions(done)
        self.outcome.records = Records(
            records.files,
            {name: {**records.kept[name], **fields} for name, fields in decided.items()},
        )
        self._digest = cache.key_of([self._digest, done.digest])
        self.outcome.stages.append(done)
        self._say(done)
        self._check_left(name)

    def _verify(self, records: Records) -> Iterator[Decision]:
        config, store = self.config, self.work / "verdicts.jsonl"
        total = sum(len(verify.chosen(record, config.verify.solutions)) for record in records)
        grader = config.grader
        with (
            sandbox_of(grader.tier, grader.workers, grader.url) as sandbox,
            self._bars() as progress,
        ):
            with sandbox.worker():  # learn at once whether programs can be isolated here
                bar = progress.add_task("official solutions", total=total)
            verdicts = verify.grade_missing(
                records, store, config.verify, sandbox, lambda: progress.advance(bar)
            )
        return verify.verify(records, verdicts, config)

    def _difficulty(self) -> None:
        config = self.config
        if config.difficulty.mode == "given":
            rates = difficulty.read_rates(config.difficulty.rates or "")
            settings: Any = [config.difficulty.low, config.difficulty.high, cache.key_of(rates)]
            self._stage(
                "difficulty",
                settings,
                lambda rows: difficulty.difficulty(rows, rates, config.difficulty),
            )
            return
        folder = model_of(config.difficulty.model or config.model)
        weights = weights_hash(folder)
        bounds = [config.difficulty.low, config.difficulty.high]

        def decide(records: Records) -> Iterator[Decision]:
            rates = difficulty.measure(
                records, config, str(folder), weights, self.work, self.console
            )
            return difficulty.difficulty(records, rates, config.difficulty)

        self._stage("difficulty", [bounds, difficulty.sampling_of(config, weights)], decide)
        self.outcome.warnings.append(
            f"pass rates rest on {config.difficulty.k} samples a problem: they are multiples of "
            f"{1 / config.difficulty.k:g}, and a problem near a bound may be on its wrong side"
        )

    def _bars(self) -> Progress:
        """Into a file they would be empty lines."""
        return make_progress_bars(
            self.console, transient=True, disable=not self.console.is_terminal
        )

    def _say(self, done: Done) -> None:
        state = "cached" if done.cached else "done"
        again = "" if done.complete else "; infrastructure failed, the next run tries those again"
        self.console.print(
            f"{done.stage}: {state}, {done.kept:,} kept, {done.removed:,} removed{again}",
            highlight=False,
            markup=False,
        )

    def _check_left(self, stage: str) -> None:
        if len(self.outcome.records):
            return
        done = (
            self.outcome.stages[-1:] if self.outcome.stages else list(self.outcome.sources.values())
        )
        removals = itertools.chain.from_iterable(one.removals() for one in done)
        first = next(removals, None)
        example = f"; the first: {first.id}: {first.reason} ({first.detail})" if first else ""
        raise NothingLeft(f"stage {stage} leaves no problem; look at {_SETTINGS[stage]}{example}")


def model_of(name: str) -> Path:
    """The folder of a model; ``quickstart`` is the package's own."""
    return prepare_model() if name == "quickstart" else model_folder(name)


def settings_of(config: PrepareConfig) -> dict[str, Any]:
    """What decides the outcome: not where it lies, nor how fast it comes."""
    settings = asdict(config)
    for name in ("output", "work", "data", "hub", "grader"):
        del settings[name]
    for source in settings["sources"].values():
        del source["file"]
    for name in (
        "concurrency",
        "timeout_s",
        "tries",
        "threads",
        "tensor_parallel_size",
        "gpu_memory_utilization",
    ):
        del settings["difficulty"]["engine"][name]
    return settings
