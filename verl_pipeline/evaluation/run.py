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
from verl_pipeline.evaluation.config import BadSetting, EvalConfig, given_answers
from verl_pipeline.evaluation.data import DataNotFound, Finder
from verl_pipeline.evaluation.engines import Engine, Request
from verl_pipeline.evaluation.engines.given import GivenEngine
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.rounds import ask_and_grade
from verl_pipeline.evaluation.store import (
    Lines,
    Row,
    TaskStore,
    claim,
    read_lines,
    sole_owner,
    write_json,
    write_lines,
)
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task
from verl_pipeline.evaluation.tasks import task_of
from verl_pipeline.machine import describe_machine, read_package_versions


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
    finder, work = prepare(config)
    scorer = scores.scorer_of(config.scorer)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSetting(f"output={output}: {error}") from error
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
        _claim(config, work, engine, model)
        calls = _calls(output)
        evaluation = _Evaluation(config, finder, engine, grader, scorer, console)
        found = [evaluation.task(one) for one in work]
        whole = {
            "schema": results.SCHEMA,
            "model": model,
            "engine": {
                **engine.settings(),
                "url": config.engine.url,
                "trained_length": config.engine.trained_length,
            },
            "purpose": config.purpose,
            "seed": work[0].sampling.seed,
            **calls[-1],
            "started": calls[0]["started"],
            "finished": _now(),
            "calls": len(calls),
            "warnings": [
                *(
                    []
                    if model["weights"] or not config.engine.url
                    else ["a server does not tell what weights it has"]
                ),
                *(
                    line
                    for one, result in zip(work, found, strict=True)
                    for line in results.warnings_of(config, one.task, one.sampling, result)
                ),
            ],
            "tasks": found,
        }
        write_json(output / "results.json", whole)
    return whole


def prepare(config: EvalConfig) -> tuple[Finder, list[Work]]:
    """Everything that is known without a model: tasks, data, sampling.

    Raises:
        Refused: it cannot be.
    """
    finder = Finder(Path(config.data) if config.data else None, config.hub)
    tasks = [task_of(name) for name in config.tasks]
    if others := config.options.keys() - {task.name for task in tasks}:
        raise BadSetting(f"options.{sorted(others)[0]}: not one of the tasks asked for")
    return finder, [_work(config, task, finder) for task in tasks]


def engine_of(config: EvalConfig) -> Engine:
    """The engine that ``config`` names; it looks at the model, but does not load it."""
    if given_answers(config.model):
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
            f"options.{task.name}: no {', '.join(sorted(unknown))}; there are "
            f"{', '.join(task.options) or 'none'}"
        )
    chosen = {
        key: value
        for key, value in dataclasses.asdict(config.sampling).items()
        if value is not None
    }
    try:
        sampling = dataclasses.replace(task.sampling, **chosen)
    except ValueError as error:
        raise BadSetting(f"{task.name}: {error}") from error
    loaded = task.load(finder, **options)
    if config.system is not None:
        system = {"role": "system", "content": config.system}
        items = [
            dataclasses.replace(item, messages=(system, *item.messages)) for item in loaded.items
        ]
        loaded = dataclasses.replace(loaded, items=items)
    if config.limit is not None and config.limit < len(loaded.items):
        note = (
            f"THE FIRST {config.limit} OF {len(loaded.items)} PROBLEMS (limit): comparable with "
            "nothing else"
        )
        loaded = dataclasses.replace(
            loaded, items=loaded.items[: config.limit], notes=[*loaded.notes, note]
        )
    if config.model == "canonical" and not all(item.canonical for item in loaded.items):
        raise BadSetting(f"model=canonical: the data of {task.name} has no solutions")
    return Work(task, loaded, sampling, contamination.seen(loaded.items, config.train_data))


def _claim(config: EvalConfig, work: list[Work], engine: Engine, model: dict[str, Any]) -> None:
    """Before anything is asked, for all tasks at once."""
    output = Path(config.output)
    # Weights that are known by their hash may be called anything.
    owner = {key: value for key, value in model.items() if key != "name" or not model["weights"]}
    claim(output / "model.json", owner, [folder for folder in output.iterdir() if folder.is_dir()])
    for one in work:
        folder = output / one.task.name
        settings = {
            "data": one.loaded.digest,
            "options": results.options_of(config, one.task),
            "style": config.style,
            "engine": engine.settings(),
            "sampling": {
                key: value for key, value in dataclasses.asdict(one.sampling).items() if key != "n"
            },
        }
        claim(folder / "settings.json", settings, [folder])


def _calls(output: Path) -> list[dict[str, Any]]:
    """What each call of this evaluation ran on, this one last."""
    path = output / "calls.jsonl"
    with contextlib.closing(Lines(path)) as calls:
        calls.add(
            {"started": _now(), "versions": read_package_versions(), "machine": describe_machine()}
        )
    return list(read_lines(path))


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
        folder = Path(self.config.output) / one.task.name
        asked = one.requests(self.config.style)
        samples, graded = self._round(one.task.name, one, folder, asked)
        write_lines(folder / "problems.jsonl", map(_problem_row, one.loaded.items))
        result["counts"] = {
            "problems": len(one.loaded.items),
            **scores.counts(asked, samples, graded),
        }
        result["problems_without_samples"] = len(one.loaded.items) - len(graded)
        result |= scores.scores(graded, one.loaded.items, self.scorer, self.config.scorer)
        result["verdicts"] = scores.verdict_counts(graded)
        result["tier"] = ", ".join(
            sorted({row["tier"] for rows in graded.values() for row in rows})
        )
        result["tokens"] = {
            "prompt": sum(row["prompt_tokens"] for row in samples),
            "generated": sum(row["tokens"] for row in samples),
        }
        result["rating"] = self._rating(one, graded, result["data"]["notes"])
        result["refinement"] = None
        if self.config.refine.n:
            if result["counts"]["failed"] or result["counts"]["infrastructure"]:
                result["data"]["notes"].append(
                    "no second round: it rests on all samples of the first, of which some lack"
                )
            else:
                result["refinement"] = self._second_round(one, folder, graded, result["methods"])
        return result

    def _second_round(
        self, one: Work, folder: Path, graded: scores.Graded, methods: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Adds its methods to ``methods``; its samples lie in a folder of what was asked."""
        refining, style = self.config.refine, self.config.style
        asked = list(
            refine.requests(one.task.name, style, one.loaded.items, graded, refining, one.sampling)
        )
        folder = folder / f"second_round-{refine.digest(asked)}"
        samples, second = self._round(f"{one.task.name}, second round", one, folder, asked)
        methods.extend(refine.combined(graded, second))
        return {
            "problems": len({request.id for request in asked}),
            **scores.counts(asked, samples, second),
            **dataclasses.asdict(refining),
            "tokens": sum(row["tokens"] for row in samples),
        }

    def _round(
        self, name: str, one: Work, folder: Path, asked: list[Request]
    ) -> tuple[list[Row], scores.Graded]:
        """The samples of what was asked, and those of them that are graded."""
        items = {item.id: item for item in one.loaded.items}
        wanted = {(request.id, request.sample) for request in asked}
        with contextlib.closing(TaskStore(folder)) as store:
            ask_and_grade(
                name, items, asked, one.sampling, self.engine, self.grader, store, self.console
            )
            samples = [row for key, row in store.samples.items() if key in wanted]
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
