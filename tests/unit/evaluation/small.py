"""A task of four problems, as a module of its own: ``--tasks tests.unit.evaluation.small``."""

from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task, asked
from verl_pipeline.grading.readers import read_mbpp_plus, read_taco


def load(finder, programs: bool = True) -> Loaded:
    """Two programs that read, one that is called by asserts, one number; without ``programs`` four
    numbers.
    """
    tests = {"inputs": ["1\n", "5\n"], "outputs": ["2\n", "10\n"]}
    double = "```python\nprint(2 * int(input()))\n```"
    asserts = {"test": "assert f(1) == 2\n", "test_list": ["assert f(1) == 2"]}
    function = "```python\ndef f(x):\n    return x + 1\n```"
    items = [
        Item(
            "double",
            asked("double"),
            read_taco(tests, name="double"),
            canonical=double,
            tags={"kind": "stdin"},
        ),
        Item(
            "again",
            asked("again"),
            read_taco(tests, name="again", public=1),
            canonical=double,
            tags={"kind": "stdin"},
        ),
        Item(
            "f",
            asked("f"),
            read_mbpp_plus(asserts, name="f"),
            canonical=function,
            tags={"kind": "function"},
        ),
        Item(
            "number",
            asked("number"),
            answer="204",
            canonical="\\boxed{204}",
            tags={"kind": "number"},
        ),
    ]
    if not programs:
        items = [
            Item(item.id, item.messages, answer="204", canonical="\\boxed{204}") for item in items
        ]
    return Loaded(items, "this file")


TASK = Task(
    name="small", title="Small", load=load, sampling=Sampling(n=2), options={"programs": True}
)


def longest(row) -> int:
    """A scorer."""
    return len(row["response"])
