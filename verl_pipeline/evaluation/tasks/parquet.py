"""Parquet files in verl's schema, graded as in training: a run's validation set.

Options: ``file``, as in ``data.val_files``: a path, a pattern such as ``DIR/*.parquet``, or a list
of them; ``source``, the name of a reader, if ``data_source`` is not one; ``grader``,
``reward_kwargs`` and ``run_config``: see
:func:`verl_pipeline.evaluation.row_graders.choose_grader`. The split is ``validation``: a run may
choose checkpoints on its validation set.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from verl_pipeline.evaluation.data import (
    DataFinder,
    DataNotFound,
    Row,
    find_named_files,
    read_rows,
)
from verl_pipeline.evaluation.reward_functions import RewardCall, RewardFunction
from verl_pipeline.evaluation.row_graders import VERL, RowGrader, choose_grader
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData, TaskItem
from verl_pipeline.evaluation.tasks._prompts import CODE_PREFILL
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import read_problem
from verl_pipeline.grading.readers.row_values import parse_list, parse_object, read_extra_info


def load_problems(
    finder: DataFinder,
    file: str | Sequence[str] = "",
    source: str = "",
    grader: str = "auto",
    reward_kwargs: Mapping[str, Any] | None = None,
    run_config: str = "",
) -> TaskData:
    """Load all rows of the files that ``file`` names.

    Raises:
        DataNotFound: there is no such file.
        BadSetting: there is no such grader, or none for the ``data_source`` of a row.
    """
    if not file:
        raise DataNotFound(
            "options.parquet.file is empty: name a parquet file in verl's schema (the run's "
            "data.val_files)"
        )
    files = find_named_files(file, "options.parquet.file")
    row_grader = choose_grader(grader, source, reward_kwargs or {}, run_config)
    data = read_items(
        itertools.chain.from_iterable(map(read_rows, files)),
        ", ".join(map(str, files)),
        functools.partial(_make_item, grader=row_grader),
    )
    return dataclasses.replace(data, notes=row_grader.list_notes(data.items))


def _make_item(number: int, row: Row, *, grader: RowGrader) -> TaskItem:
    extra_info = read_extra_info(row.get("extra_info"))
    name = str(extra_info.get("name") or f"row-{number}")
    messages = tuple(
        {"role": message["role"], "content": message["content"]}
        for message in parse_list(row["prompt"], "prompt as a list of messages")
    )
    truth = parse_object(row["reward_model"], "reward_model as an object")["ground_truth"]
    data_source = str(row["data_source"])
    tags = {"source": data_source}
    chosen = grader.choose(data_source)
    if chosen is None:
        canonical = f"\\boxed{{{truth}}}"
        return TaskItem(name, messages, answer=str(truth), canonical=canonical, tags=tags)
    if isinstance(chosen, RewardFunction):
        return TaskItem(
            name,
            messages,
            # An answer in both forms that verl's scorers look for.
            canonical=(
                f"\\boxed{{{truth}}}\n#### {truth}"
                if chosen == VERL and isinstance(truth, str)
                else None
            ),
            tags=tags,
            reward=RewardCall(chosen, data_source, truth, extra_info),
        )
    return TaskItem(
        name,
        messages,
        problem=read_problem(chosen, truth, name=name),
        prefill=CODE_PREFILL,
        tags=tags,
    )


TASK = Task(
    name="parquet",
    title="A parquet file in verl's schema",
    load=load_problems,
    sampling=SamplingParameters(n=4, temperature=1.0, top_p=1.0),
    options={"file": "", "source": "", "grader": "auto", "reward_kwargs": {}, "run_config": ""},
    split="validation",
)
