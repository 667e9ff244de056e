"""LeetCode problems in rLLM's form: a method of ``class Solution`` to write, graded by asserts."""

from verl_pipeline.evaluation.data import Finder, Row
from verl_pipeline.evaluation.task import Item, Loaded, Task, asked
from verl_pipeline.evaluation.tasks._reading import CODE_PREFILL, REASONING, fenced, read_all
from verl_pipeline.grading.readers import read_leetcode


def load(finder: Finder) -> Loaded:
    """All rows of a local file; there is no licence to get it elsewhere."""
    rows, origin = finder.find(["leetcode_test", "leetcode"])
    return read_all(rows, origin, _item)


def _item(number: int, row: Row) -> Item:
    name = str(row.get("id") or f"row-{number}")
    return Item(
        id=name,
        messages=asked(row["problem"]),
        problem=read_leetcode(row["tests"], name=name),
        prefill=CODE_PREFILL,
        canonical=fenced(row["solutions"]) if isinstance(row.get("solutions"), str) else None,
    )


TASK = Task(name="leetcode", title="LeetCode (rLLM's test rows)", load=load, sampling=REASONING)
