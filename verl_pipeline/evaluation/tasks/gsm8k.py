"""GSM8K (Cobbe et al. 2021), test split: 1,319 word problems with integer answers."""

import dataclasses

from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.task import Item, Loaded, Task, asked
from verl_pipeline.evaluation.tasks._reading import BOXED, REASONING, read_all
from verl_pipeline.grading.readers import BadRow


def load(finder: Finder) -> Loaded:
    """The test split."""
    rows, origin = finder.find(
        ["gsm8k_test", "gsm8k"],
        hub=Hub("openai/gsm8k", ("main/test-*.parquet",)),
        parts=["gsm8k/test"],
    )
    return read_all(rows, origin, _item)


def _item(number: int, row: Row) -> Item:
    _reasoning, mark, answer = row["answer"].rpartition("####")
    if not mark:
        raise BadRow("answer has no ####")
    answer = answer.strip().replace(",", "")
    return Item(
        f"test-{number}",
        asked(f"{row['question']}{BOXED}"),
        answer=answer,
        canonical=f"\\boxed{{{answer}}}",
    )


TASK = Task(
    name="gsm8k",
    title="GSM8K",
    load=load,
    sampling=dataclasses.replace(REASONING, max_tokens=2048),
)
