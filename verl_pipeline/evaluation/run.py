"""An evaluation from settings to ``results.json``: load, ask, grade, estimate.

Invariants:
* Everything that can be refused is refused before the model is loaded.
* One process at a time works in a folder; what is there already is not done again.
"""

import contextlib
import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation import contamination, refine, results, scores
from verl_pipeline.evaluation.config import BadSetting, EvalConfig
from verl_pipeline.evaluation.data import DataNotFound, Finder
from verl_pipeline.evaluation.engines import Engine, Request
from verl_pipeline.evaluation.engines.given import GivenEngine
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.rounds import ask_and_grade
from verl_pipeline.evaluation.store import Row, TaskStore, claim, sole_owner, write_json, write_lines
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task
from verl_pipeline.evaluation.tasks import task_of
from verl_pipeline.machine import machine, package_versions


@dataclass
class Work:
    """One task of an evaluation."""

    task: Task
    loaded: Loaded
    sampling: Sampling
    seen: list[str]

    def requests(self, style: str) -> list[Request]:
        """All samples, problem by problem."""
        return [
            Request(
                self.task.name,
                item.id,
                sample,
                self.sampling.seed_of(item.id, sample),
                item.messages,
                item.prefill if style == "prefill" else "",
                item.canonical,
            )
            for item in self.loaded.items
            for sample in range(self.sampling.n)
        ]


def evaluate(config: EvalConfig, console: Console, engine: Engine | None = None) -> dict[str, Any]:
    """Run, or go on with, an evaluation.

    Args:
        engine: what answers; None: what ``config`` says.

    Returns:
        What is written to ``results.json``.

    Raises:
        Refused: it cannot be; nothing that is stored is lost.
        SandboxError: programs cannot be isolated here.
    """
    output = Path(config.output)
    finder = Finder(Path(config.data) if config.data else None, config.hub)
    tasks = [task_of(name) for name in config.tasks]
    if others := config.options.keys() - {task.name for task in tasks}:
        raise BadSetting(f"options.{sorted(others)[0]}: not one of the tasks asked for")
    work = [_work(config, task, finder) for task in tasks]
    scorer = scores.scorer_of(config.scorer)
    started = _now()
    with (
        contextlib.closing(Grader(config.grader)) as grader,
        contextlib.closing(engine or engine_of(config)) as engine,
        sole_owner(output),
    ):
        if any(item.problem for one in work for item in one.loaded.items):
            grader.start()
        for one in work:
            more = refine.MORE_TOKENS if config.refine.n else 0
            engine.check_lengths(one.requests(config.style)[:: one.sampling.n], one.sampling, more)
        model = engine.identity()
        claim(output / "model.json", model, "samples")
        evaluation = _Evaluation(config, finder, engine, grader, scorer, console)
        found = [evaluation.task(one) for one in work]
        whole = {
            "schema": results.SCHEMA,
            "model": model,
            "engine": {**engine.settings(), "trained_length": config.engine.trained_length},
            "purpose": config.purpose,
            "seed": work[0].sampling.seed,
            "versions": package_versions(),
            "machine": machine(),
            "started": started,
            "finished": _now(),
            "warnings": [
                line
                for one, result in zip(work, found, strict=True)
                for line in results.warnings_of(config, one.task, one.sampling, result)
            ],
            "tasks": found,
        }
        write_json(output / "results.json", whole)
    return whole


def engine_of(config: EvalConfig) -> Engine:
    """The engine that ``config`` names; it looks at the model, but does not load it."""
    if config.model in ("canonical", "empty") or config.model.endswith(".jsonl"):
        return GivenEngine(config.model)
    if config.engine.kind == "server":
        from verl_pipeline.evaluation.engines.server import ServerEngine

        return ServerEngine(config.model, config.engine)
    from verl_pipeline.evaluation.engines.vllm import VllmEngine

    return VllmEngine(config.model, config.engine)


def _work(config: EvalConfig, task: Task, finder: Finder) -> Work:
    options = results.options_of(config, task)
    if unknown := options.keys() - task.options.keys():
        raise BadSetting(
            f"options.{task.name}: no {', '.join(sorted(unknown))}; there are {', '.join(task.options) or 'none'}"
        )
    chosen = {key: value for key, value in dataclasses.asdict(config.sampling).items() if value is not None}
    try:
        sampling = dataclasses.replace(task.sampling, **chosen)
    except ValueError as error:
        raise BadSetting(f"{task.name}: {error}") from error
    loaded = task.load(finder, **options)
    return Work(task, loaded, sampling, contamination.seen(loaded.items, config.train_data))


@dataclass(frozen=True)
class _Evaluation:
    """What all tasks of an evaluation share."""

    config: EvalConfig
    finder: Finder
    engine: Engine
    grader: Grader
    scorer: scores.Scorer
    console: Console

    def task(self, one: Work) -> dict[str, Any]:
        """Ask, grade, estimate: the results of one task."""
        result = results.describe(self.config, one.task, one.loaded, one.sampling, one.seen)
        settings = {
            "data": one.loaded.digest,
            "options": result["options"],
            "style": self.config.style,
            "engine": self.engine.settings(),
            "sampling": {key: value for key, value in result["sampling"].items() if key != "n"},
        }
        folder = Path(self.config.output) / one.task.name
        samples, graded = self._round(one, folder, settings, one.requests(self.config.style), one.sampling.n)
        write_lines(folder / "problems.jsonl", map(_problem_row, one.loaded.items))
        result["counts"] = scores.counts(one.loaded.items, one.sampling.n, samples, graded)
        result |= scores.scores(graded, one.loaded.items, self.scorer)
        result["verdicts"] = scores.verdict_counts(graded)
        result["tier"] = ", ".join(sorted({row["tier"] for rows in graded.values() for row in rows}))
        result["tokens"] = {
            "prompt": sum(row["prompt_tokens"] for row in samples),
            "generated": sum(row["tokens"] for row in samples),
        }
        result["rating"] = self._rating(one, graded, result["data"]["notes"])
        result["refinement"] = None
        if self.config.refine.n and graded:
            result["refinement"] = self._second_round(one, folder, settings, graded, result["methods"])
        return result

    def _second_round(
        self, one: Work, folder: Path, settings: dict[str, Any], graded: scores.Graded, methods: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Adds its methods to ``methods``."""
        refining = self.config.refine
        asked = list(refine.requests(one.task.name, one.loaded.items, graded, refining, one.sampling))
        # What is asked rests on all samples of the first round.
        settings = {**settings, "refine": [refining.agreement, refining.confidence], "first_round": one.sampling.n}
        samples, second = self._round(one, folder / "second_round", settings, asked, refining.n)
        methods.extend(refine.combined(graded, second))
        return {
            "problems": len({request.id for request in asked}),
            "samples": len(samples),
            "failed": len(asked) - len(samples),
            **dataclasses.asdict(refining),
            "tokens": sum(row["tokens"] for row in samples),
        }

    def _round(
        self, one: Work, folder: Path, settings: dict[str, Any], requests: list[Request], n: int
    ) -> tuple[list[Row], scores.Graded]:
        """The samples of ``requests``, and those of them that are graded."""
        claim(folder / "settings.json", settings, "samples")
        items = {item.id: item for item in one.loaded.items}
        with contextlib.closing(TaskStore(folder)) as store:
            name = f"{one.task.name}, second round" if folder.name == "second_round" else one.task.name
            ask_and_grade(name, items, requests, one.sampling, self.engine, self.grader, store, self.console)
            samples = [row for row in store.samples.values() if row["sample"] < n]
            return samples, scores.join(samples, store.verdicts)

    def _rating(self, one: Work, graded: scores.Graded, notes: list[str]) -> dict[str, Any] | None:
        if one.task.rate is None or not graded:
            return None
        try:
            return one.task.rate(self.finder, scores.rewards_of(graded))
        except DataNotFound as error:
            notes.append(str(error))
            return None


def _problem_row(item: Item) -> Row:
    prompt = "\n\n".join(message["content"] for message in item.messages)
    return {"id": item.id, "prompt": prompt, "tags": dict(item.tags)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
