"""MBPP (Austin et al. 2021), test split (task ids 11 to 510); the prompt shows the first of three
asserts.
"""

from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task, asked
from verl_pipeline.evaluation.tasks._reading import (
    SELF_CONTAINED,
    SELF_CONTAINED_PREFILL,
    fenced,
    read_all,
)
from verl_pipeline.grading import Problem
from verl_pipeline.grading.readers import read_mbpp

TEST = range(11, 511)
SANITIZED = ["mbpp_sanitized", "sanitized-mbpp"]
SANITIZED_HUB = Hub("google-research-datasets/mbpp", ("sanitized/*.parquet",))


def item_of(row: Row, problem: Problem) -> Item:
    """A row of MBPP, asked as EvalPlus asks it."""
    text = str(row.get("prompt") or row["text"]).strip()
    return Item(
        id=str(row["task_id"]),
        messages=asked(f'{SELF_CONTAINED}\n```\n"""\n{text}\n{row["test_list"][0]}\n"""\n```\n'),
        problem=problem,
        prefill=SELF_CONTAINED_PREFILL,
        canonical=fenced(row["code"]) if row.get("code") else None,
    )


def load_ids(finder: Finder, ids: range) -> Loaded:
    """Problems of the sanitized set whose task id is in ``ids``."""
    rows, origin = finder.find(SANITIZED, hub=SANITIZED_HUB)

    def read(_number: int, row: Row) -> Item | None:
        return item_of(row, read_mbpp(row, public=1)) if int(row["task_id"]) in ids else None

    return read_all(rows, origin, read)


def load(finder: Finder) -> Loaded:
    """The sanitized problems of the test split."""
    return load_ids(finder, TEST)


TASK = Task(name="mbpp", title="MBPP sanitized, test split", load=load, sampling=Sampling(n=8))
