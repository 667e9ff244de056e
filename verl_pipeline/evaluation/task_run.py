"""Runs one task of an evaluation: generation, grading, scores, and the optional second round."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation import graded_samples, results, scores, second_round
from verl_pipeline.evaluation.answer_methods import Scorer
from verl_pipeline.evaluation.behaviours import add_behaviours
from verl_pipeline.evaluation.confidence_methods import ConfidenceWindows
from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.evaluation.engines import Engine, SampleRequest
from verl_pipeline.evaluation.eval_settings import EvalConfig
from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.missing_answers import count_answers
from verl_pipeline.evaluation.sampling_round import sample_and_grade
from verl_pipeline.evaluation.store import TaskStore
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.evaluation.task_plan import TaskPlan
from verl_pipeline.outputs.files import Row, write_lines


@dataclass(frozen=True)
class TaskRunner:
    """Runs the tasks of one evaluation; the attributes are shared by all tasks."""

    config: EvalConfig
    finder: DataFinder
    engine: Engine
    grader: Grader
    scorer: Scorer
    console: Console

    def run_task(self, plan: TaskPlan) -> dict[str, Any]:
        """Generate, grade and score one task; returns its entry for ``results.json``."""
        result = results.describe_task(
            self.config, plan.task, plan.data, plan.sampling, plan.contaminated_ids
        )
        items = plan.data.items
        folder = Path(self.config.output) / plan.task.name
        requests = plan.make_requests(self.config.style)
        samples, graded = self._run_round(plan.task.name, plan, folder, requests)
        write_lines(folder / "problems.jsonl", map(_make_problem_row, items))
        result["counts"] = {
            "problems": len(items),
            **graded_samples.count_samples(requests, samples, graded),
        }
        result["problems_without_samples"] = len(items) - len(graded)
        result["behaviours"] = None
        if self.config.behaviour.inputs and graded_samples.is_binary(graded):
            result["behaviours"] = add_behaviours(
                graded, items, self.config.behaviour, self.grader, folder, self.console
            )
        tops = self.config.engine.top_logprobs
        windows = None if tops is None else ConfidenceWindows(self.config.confidence, tops)
        result |= scores.estimate_scores(graded, items, self.scorer, self.config.scorer, windows)
        result["answers"] = count_answers(graded, items)
        result["verdicts"] = graded_samples.count_verdicts(graded)
        result["tier"] = ", ".join(
            sorted({row["tier"] for rows in graded.values() for row in rows})
        )
        result["tokens"] = {
            "prompt": sum(row["prompt_tokens"] for row in samples),
            "generated": sum(row["tokens"] for row in samples),
        }
        result |= self._estimate_rating(plan, graded)
        result["refinement"] = None
        is_complete = not (result["counts"]["failed"] or result["counts"]["infrastructure"])
        if self.config.refine.n and is_complete and result["cons@k"]:
            result["refinement"] = self._run_second_round(plan, folder, graded, result["methods"])
        return result

    def _run_second_round(
        self,
        plan: TaskPlan,
        folder: Path,
        graded: GradedSamples,
        methods: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """Run the second round, append its scores to ``methods``, and return its counts."""
        config = self.config.refine
        requests = list(
            second_round.make_requests(
                plan.task.name, self.config.style, plan.data.items, graded, config, plan.sampling
            )
        )
        # The folder's name depends on the requests: other first-round samples, other folder.
        folder = folder / f"second_round-{second_round.digest_requests(requests)}"
        samples, second = self._run_round(f"{plan.task.name}, second round", plan, folder, requests)
        methods.extend(second_round.score_both_rounds(graded, second))
        return {
            "problems": len({request.id for request in requests}),
            **graded_samples.count_samples(requests, samples, second),
            **dataclasses.asdict(config),
            "tokens": sum(row["tokens"] for row in samples),
        }

    def _run_round(
        self, title: str, plan: TaskPlan, folder: Path, requests: Sequence[SampleRequest]
    ) -> tuple[list[Row], GradedSamples]:
        """Return the samples of ``requests``, and those of them that have a reward."""
        items = {item.id: item for item in plan.data.items}
        requested = {(request.id, request.sample) for request in requests}
        with contextlib.closing(TaskStore(folder)) as store:
            sample_and_grade(
                title,
                items,
                requests,
                plan.sampling,
                self.engine,
                self.grader,
                store,
                self.console,
            )
            # The store may hold more samples, of an earlier call with a larger n.
            samples = [row for key, row in store.samples.items() if key in requested]
            return samples, graded_samples.join_verdicts(samples, store.verdicts)

    def _estimate_rating(self, plan: TaskPlan, graded: GradedSamples) -> dict[str, Any]:
        """Return the ``rating`` and ``rating_missing``, the reason if data for it is missing."""
        rating, reason = None, None
        if plan.task.rate is not None and graded:
            try:
                rating = plan.task.rate(self.finder, graded_samples.group_rewards(graded))
            except DataNotFound as error:
                reason = str(error)
        return {"rating": rating, "rating_missing": reason}


def _make_problem_row(item: TaskItem) -> Row:
    prompt = "\n\n".join(message["content"] for message in item.messages)
    return {"id": item.id, "prompt": prompt, "tags": dict(item.tags)}
