"""Plans an evaluation's tasks: data, options, sampling parameters and requests.

Invariants:
* Planning needs no model, so that bad settings and missing data are found before one is loaded.
* A problem whose expected answer cannot be read is a bad row, listed by name, and never sampled.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.evaluation import contamination, results
from verl_pipeline.evaluation.data import BadData, DataFinder
from verl_pipeline.evaluation.engines import SampleRequest
from verl_pipeline.evaluation.eval_settings import BadSetting, EvalConfig
from verl_pipeline.evaluation.graders import find_unreadable_answers
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData
from verl_pipeline.evaluation.tasks import find_task


@dataclass
class TaskPlan:
    """One task of an evaluation with its data and sampling parameters.

    Attributes:
        contaminated_ids: ids of the problems that are in the training data.
    """

    task: Task
    data: TaskData
    sampling: SamplingParameters
    contaminated_ids: list[str]

    def make_requests(self, style: str) -> list[SampleRequest]:
        """Return one request per sample, problem by problem."""
        return [
            SampleRequest(
                self.task.name,
                item.id,
                sample,
                self.sampling.derive_seed(item.id, sample),
                item.messages,
                item.prefill if style == "prefill" else "",
                item.canonical,
            )
            for item in self.data.items
            for sample in range(self.sampling.n)
        ]


def plan_tasks(config: EvalConfig) -> tuple[DataFinder, list[TaskPlan]]:
    """Load the data of all tasks and resolve their sampling parameters.

    Raises:
        UserError: a setting cannot work, or data is missing or unreadable.
    """
    finder = DataFinder(Path(config.data) if config.data else None, config.hub)
    tasks = [find_task(name) for name in config.tasks]
    if unused := config.options.keys() - {task.name for task in tasks}:
        raise BadSetting(
            f"options.{sorted(unused)[0]}: this task is not in tasks; add or remove it"
        )
    return finder, [_plan_task(config, task, finder) for task in tasks]


def _plan_task(config: EvalConfig, task: Task, finder: DataFinder) -> TaskPlan:
    options = results.merge_options(config, task)
    if unknown := options.keys() - task.options.keys():
        raise BadSetting(
            f"options.{task.name}: no {', '.join(sorted(unknown))}; there are "
            f"{', '.join(task.options) or 'none'}"
        )
    overrides = {
        key: value
        for key, value in dataclasses.asdict(config.sampling).items()
        if value is not None
    }
    try:
        sampling = dataclasses.replace(task.sampling, **overrides)
    except ValueError as error:
        raise BadSetting(f"{task.name}: {error}") from error
    data = task.load(finder, **options)
    if config.system is not None:
        data = _add_system_prompt(data, config.system)
    if config.limit is not None and config.limit < len(data.items):
        data = _keep_first_problems(data, config.limit)
    data = _leave_out_unreadable_answers(data)
    if config.model == "canonical" and not all(item.canonical for item in data.items):
        raise BadSetting(
            f"model=canonical: the data of {task.name} has no solutions; leave this task out"
        )
    contaminated = contamination.find_contaminated_problems(data.items, config.train_data)
    return TaskPlan(task, data, sampling, contaminated)


def _add_system_prompt(data: TaskData, text: str) -> TaskData:
    system = {"role": "system", "content": text}
    items = [dataclasses.replace(item, messages=(system, *item.messages)) for item in data.items]
    return dataclasses.replace(data, items=items)


def _leave_out_unreadable_answers(data: TaskData) -> TaskData:
    """Move problems whose expected answer cannot be read to the rows that cannot be read."""
    answers = [item for item in data.items if item.problem is None]
    unreadable = find_unreadable_answers(answers) if answers else {}
    bad = [f"{name}: {reason}" for name, reason in unreadable.items()]
    items = [item for item in data.items if item.id not in unreadable]
    if not items:
        raise BadData(f"{data.origin}: no expected answer can be read; the first: {bad[0]}")
    return dataclasses.replace(data, items=items, bad_rows=[*data.bad_rows, *bad])


def _keep_first_problems(data: TaskData, limit: int) -> TaskData:
    note = (
        f"ONLY THE FIRST {limit} OF {len(data.items)} PROBLEMS (limit): not comparable with other "
        "results"
    )
    return dataclasses.replace(data, items=data.items[:limit], notes=[*data.notes, note])
