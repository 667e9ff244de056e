"""A task of four problems in a module of its own: ``--tasks tests.helpers.small_task``."""

from verl_pipeline.evaluation.task import (
    SamplingParameters,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)
from verl_pipeline.grading.readers import read_mbpp_plus, read_taco


def load_problems(finder, programs: bool = True) -> TaskData:
    """Make two stdin problems, a function and a number; without ``programs``, four numbers."""
    tests = {"inputs": ["1\n", "5\n"], "outputs": ["2\n", "10\n"]}
    double = "```python\nprint(2 * int(input()))\n```"
    asserts = {"test": "assert f(1) == 2\n", "test_list": ["assert f(1) == 2"]}
    function = "```python\ndef f(x):\n    return x + 1\n```"
    items = [
        TaskItem(
            "double",
            make_conversation("double"),
            read_taco(tests, name="double"),
            canonical=double,
            tags={"kind": "stdin"},
        ),
        TaskItem(
            "again",
            make_conversation("again"),
            read_taco(tests, name="again", public=1),
            canonical=double,
            tags={"kind": "stdin"},
        ),
        TaskItem(
            "f",
            make_conversation("f"),
            read_mbpp_plus(asserts, name="f"),
            canonical=function,
            tags={"kind": "function"},
        ),
        TaskItem(
            "number",
            make_conversation("number"),
            answer="204",
            canonical="\\boxed{204}",
            tags={"kind": "number"},
        ),
    ]
    if not programs:
        items = [
            TaskItem(item.id, item.messages, answer="204", canonical="\\boxed{204}")
            for item in items
        ]
    return TaskData(items, "this file")


TASK = Task(
    name="small",
    title="Small",
    load=load_problems,
    sampling=SamplingParameters(n=2),
    options={"programs": True},
)


def score_length(row) -> int:
    """Score a sample by its length."""
    return len(row["response"])
