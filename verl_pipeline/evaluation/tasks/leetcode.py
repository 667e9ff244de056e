"""LeetCode problems in rLLM's form: a method of ``class Solution``, graded by asserts."""

from verl_pipeline.evaluation.data import DataFinder, Row
from verl_pipeline.evaluation.task import Task, TaskData, TaskItem, make_conversation
from verl_pipeline.evaluation.tasks._prompts import CODE_PREFILL, REASONING_SAMPLING, fence_program
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import read_leetcode


def load_problems(finder: DataFinder) -> TaskData:
    """Load all rows of a local file; its licence allows no download from elsewhere."""
    rows, origin = finder.find_rows(["leetcode_test", "leetcode"])
    return read_items(rows, origin, _make_item)


def _make_item(number: int, row: Row) -> TaskItem:
    name = str(row.get("id") or f"row-{number}")
    return TaskItem(
        id=name,
        messages=make_conversation(row["problem"]),
        problem=read_leetcode(row["tests"], name=name),
        prefill=CODE_PREFILL,
        canonical=fence_program(row["solutions"])
        if isinstance(row.get("solutions"), str)
        else None,
    )


TASK = Task(
    name="leetcode",
    title="LeetCode (rLLM's test rows)",
    load=load_problems,
    sampling=REASONING_SAMPLING,
)
