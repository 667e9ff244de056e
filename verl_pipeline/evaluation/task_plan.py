"""Plans an evaluation's tasks: data, options, sampling parameters and requests.

Invariants:
* Planning needs no model, so that bad settings and missing data are found before one is loaded.
* A problem whose expected answer cannot be read is a bad row, listed by name, and never sampled.
* A training's reward function has scored a response to each data source before a plan exists.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation import contamination, results
from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.data import BadData, DataFinder
from verl_pipeline.evaluation.engines import SampleRequest
from verl_pipeline.evaluation.eval_settings import BadSetting, EvalConfig
from verl_pipeline.evaluation.graders import find_unreadable_answers
from verl_pipeline.evaluation.reward_functions import check_rewards
from verl_pipeline.evaluation.suggestions import suggest_name
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
    names = [task.name for task in tasks]
    for name in config.options:
        if name not in names:
            raise BadSetting(
                f"options.{name}: {name} is not in tasks ({', '.join(names)}); "
                f"{suggest_name(name, names)}correct the name, or add the task"
            )
    return finder, [_plan_task(config, task, finder) for task in tasks]


def _plan_task(config: EvalConfig, task: Task, finder: DataFinder) -> TaskPlan:
    options = results.merge_options(config, task)
    for name in options:
        if name not in task.options:
            raise BadSetting(
                f"options.{task.name}: no {name}; {suggest_name(name, task.options)}there are "
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
    data.caveats.extend(_check_size(task, data, options))
    if config.system is not None:
        data = _add_system_prompt(data, config.system)
    if config.limit is not None and config.limit < len(data.items):
        data = _keep_first_problems(data, config.limit)
    data = _leave_out_unreadable_answers(data)
    if config.model == "canonical" and not all(item.canonical for item in data.items):
        raise BadSetting(
            f"model=canonical: the data of {task.name} has no solutions; leave this task out"
        )
    calls = (item.reward for item in data.items if item.reward)
    check_rewards(task.name, calls, config.grader.reward_s)
    contaminated = contamination.find_contaminated_problems(data.items, config.train_data)
    return TaskPlan(task, data, sampling, contaminated)


def _check_size(task: Task, data: TaskData, options: Mapping[str, Any]) -> list[Caveat]:
    """Return a caveat if the data is not the whole benchmark."""
    found = len(data.items) + len(data.bad_rows)
    if task.size in (None, found) or options != task.options:
        return []
    text = f"the data ({data.origin}) has {found} problems, but {task.title} has {task.size}"
    return [Caveat("other_size", text, label=f"{found}of{task.size}")]


def _add_system_prompt(data: TaskData, text: str) -> TaskData:
    system = {"role": "system", "content": text}
    items = [dataclasses.replace(item, messages=(system, *item.messages)) for item in data.items]
    return dataclasses.replace(data, items=items)


def _leave_out_unreadable_answers(data: TaskData) -> TaskData:
    """Move problems whose expected answer cannot be read to the rows that cannot be read."""
    answers = [item for item in data.items if item.grader == "math"]
    unreadable = find_unreadable_answers(answers) if answers else {}
    bad = [f"{name}: {reason}" for name, reason in unreadable.items()]
    items = [item for item in data.items if item.id not in unreadable]
    if not items:
        raise BadData(f"{data.origin}: no expected answer can be read; the first: {bad[0]}")
    return dataclasses.replace(data, items=items, bad_rows=[*data.bad_rows, *bad])


def _keep_first_problems(data: TaskData, limit: int) -> TaskData:
    caveat = Caveat(
        "limited",
        f"ONLY THE FIRST {limit} OF {len(data.items)} PROBLEMS (limit): not comparable with other "
        "results",
        label=f"first{limit}",
    )
    return dataclasses.replace(data, items=data.items[:limit], caveats=[caveat, *data.caveats])
