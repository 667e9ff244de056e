"""Parquet files in verl's schema, graded as in training: a run's validation set.

Options: ``file``, as in ``data.val_files``: a path, a pattern such as ``DIR/*.parquet``, or a list
of them; ``source``, the name of a reader, if ``data_source`` is not one; ``grader=math``, if
``ground_truth`` is an answer instead of tests. The split is ``validation``: a run may choose
checkpoints on its validation set.
"""

import functools
import itertools
from collections.abc import Sequence

from verl_pipeline.evaluation.data import (
    DataFinder,
    DataNotFound,
    Row,
    find_named_files,
    read_rows,
)
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData, TaskItem
from verl_pipeline.evaluation.tasks._prompts import CODE_PREFILL
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import READERS, BadRow, read_problem
from verl_pipeline.grading.readers.row_values import parse_list, parse_object, read_extra_info


def load_problems(
    finder: DataFinder, file: str | Sequence[str] = "", source: str = "", grader: str = "code"
) -> TaskData:
    """Load all rows of the files that ``file`` names.

    Raises:
        DataNotFound: there is no such file.
        BadSetting: ``grader`` is neither ``code`` nor ``math``.
    """
    if not file:
        raise DataNotFound(
            "options.parquet.file is empty: name a parquet file in verl's schema (the run's "
            "data.val_files)"
        )
    files = find_named_files(file, "options.parquet.file")
    if grader not in ("code", "math"):
        raise BadSetting(f"options.parquet.grader={grader!r}: must be 'code' or 'math'")
    return read_items(
        itertools.chain.from_iterable(map(read_rows, files)),
        ", ".join(map(str, files)),
        functools.partial(_make_item, source=source, grader=grader),
    )


def _make_item(number: int, row: Row, *, source: str, grader: str) -> TaskItem:
    name = str(read_extra_info(row.get("extra_info")).get("name") or f"row-{number}")
    messages = tuple(
        {"role": message["role"], "content": message["content"]}
        for message in parse_list(row["prompt"], "prompt as a list of messages")
    )
    truth = parse_object(row["reward_model"], "reward_model as an object")["ground_truth"]
    tags = {"source": str(row["data_source"])}
    if grader == "math":
        return TaskItem(
            name, messages, answer=str(truth), canonical=f"\\boxed{{{truth}}}", tags=tags
        )
    reader = source or str(row["data_source"])
    if reader not in READERS:
        raise BadRow(
            f"data_source {reader!r} has no reader; set options.parquet.grader=math if ground_truth"
            f" is an answer, or options.parquet.source to one of {', '.join(sorted(READERS))}"
        )
    return TaskItem(
        name,
        messages,
        problem=read_problem(reader, truth, name=name),
        prefill=CODE_PREFILL,
        tags=tags,
    )


TASK = Task(
    name="parquet",
    title="A parquet file in verl's schema",
    load=load_problems,
    sampling=SamplingParameters(n=4, temperature=1.0, top_p=1.0),
    options={"file": "", "source": "", "grader": "code"},
    split="validation",
)
