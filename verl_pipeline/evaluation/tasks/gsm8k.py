"""GSM8K (Cobbe et al. 2021), test split: 1,319 word problems with integer answers.

The prompt is DeepSeek-R1's, which asks for a boxed answer, and the maths reward reads the last box:
``#### 18``, the form of the data set and of verl's GSM8K example, is no answer here. The task
``parquet`` evaluates on verl's own file, in verl's form.
"""

import dataclasses

from verl_pipeline.evaluation.data import DataFinder, HubFiles, Row
from verl_pipeline.evaluation.task import Task, TaskData, TaskItem, make_conversation
from verl_pipeline.evaluation.tasks._prompts import BOXED_INSTRUCTION, REASONING_SAMPLING
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import BadRow


def load_problems(finder: DataFinder) -> TaskData:
    """Load the test split."""
    rows, origin = finder.find_rows(
        ["gsm8k_test", "gsm8k"],
        hub=HubFiles("openai/gsm8k", ("main/test-*.parquet",)),
        parts=["gsm8k/test"],
    )
    return read_items(rows, origin, _make_item)


def _make_item(number: int, row: Row) -> TaskItem:
    _reasoning, mark, answer = row["answer"].rpartition("####")
    if not mark:
        raise BadRow("answer has no ####, which precedes the number")
    answer = answer.strip().replace(",", "")
    return TaskItem(
        f"test-{number}",
        make_conversation(f"{row['question']}{BOXED_INSTRUCTION}"),
        answer=answer,
        canonical=f"\\boxed{{{answer}}}",
    )


TASK = Task(
    name="gsm8k",
    title="GSM8K",
    load=load_problems,
    size=1319,
    sampling=dataclasses.replace(REASONING_SAMPLING, max_tokens=2048),
)
