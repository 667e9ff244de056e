"""MBPP sanitized (Austin et al. 2021), test split: task ids 11 to 510.

The prompt shows the first of a problem's three asserts.
"""

from verl_pipeline.evaluation.data import DataFinder, HubFiles, Row
from verl_pipeline.evaluation.task import (
    SamplingParameters,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)
from verl_pipeline.evaluation.tasks._prompts import (
    SELF_CONTAINED_INSTRUCTION,
    SELF_CONTAINED_PREFILL,
    fence_program,
)
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading import Problem
from verl_pipeline.grading.readers import read_mbpp
from verl_pipeline.grading.readers.row_values import parse_list

TEST_IDS = range(11, 511)
SANITIZED = ["mbpp_sanitized", "sanitized-mbpp"]
SANITIZED_HUB = HubFiles("google-research-datasets/mbpp", ("sanitized/*.parquet",))


def make_item(row: Row, problem: Problem) -> TaskItem:
    """Make a problem from a row of MBPP, with EvalPlus's prompt."""
    text = str(row.get("prompt") or row["text"]).strip()
    first_test = parse_list(row["test_list"], "test_list as a list of text")[0]
    return TaskItem(
        id=str(row["task_id"]),
        messages=make_conversation(
            f'{SELF_CONTAINED_INSTRUCTION}\n```\n"""\n{text}\n{first_test}\n"""\n```\n'
        ),
        problem=problem,
        prefill=SELF_CONTAINED_PREFILL,
        canonical=fence_program(row["code"]) if row.get("code") else None,
    )


def load_ids(finder: DataFinder, ids: range) -> TaskData:
    """Load the problems of the sanitized set whose task id is in ``ids``."""
    rows, origin = finder.find_rows(SANITIZED, hub=SANITIZED_HUB)

    def make_selected_item(_number: int, row: Row) -> TaskItem | None:
        return make_item(row, read_mbpp(row, public=1)) if int(row["task_id"]) in ids else None

    return read_items(rows, origin, make_selected_item)


def load_problems(finder: DataFinder) -> TaskData:
    """Load the sanitized problems of the test split."""
    return load_ids(finder, TEST_IDS)


TASK = Task(
    name="mbpp",
    title="MBPP sanitized, test split",
    load=load_problems,
    size=257,
    sampling=SamplingParameters(n=8),
)
