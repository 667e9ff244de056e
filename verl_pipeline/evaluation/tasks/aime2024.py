"""AIME 2024, I and II: 30 problems whose answers are integers from 0 to 999."""

import dataclasses

from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.task import Item, Loaded, Published, Task, asked
from verl_pipeline.evaluation.tasks._reading import BOXED, REASONING, read_all

_R1 = "README of DeepSeek-R1"
_R1_NOTE = "64 samples a problem, 32,768 tokens"


def load(finder: Finder) -> Loaded:
    """All 30, in the form of rLLM or of the hub (``problem``, ``answer``)."""
    rows, origin = finder.find(
        ["aime2024", "aime24", "aime_2024"], hub=Hub("HuggingFaceH4/aime_2024", ("data/*.parquet",))
    )
    loaded = read_all(rows, origin, _item)
    loaded.notes.append(
        f"{len(loaded.items)} problems: more samples do not narrow the interval below what so few "
        "problems allow"
    )
    return loaded


def _item(number: int, row: Row) -> Item:
    numbered = row.get("aime_number") and row.get("problem_number")
    return Item(
        id=(
            f"2024-{'I' * int(row['aime_number'])}-{row['problem_number']}"
            if numbered
            else str(row.get("id", number))
        ),
        messages=asked(f"{row['problem']}{BOXED}"),
        answer=str(int(row["answer"])),
        canonical=f"\\boxed{{{int(row['answer'])}}}",
    )


TASK = Task(
    name="aime2024",
    title="AIME 2024",
    load=load,
    sampling=dataclasses.replace(REASONING, n=64),
    published=(
        Published(
            "DeepCoder-14B-Preview",
            73.8,
            "pass@1",
            "DeepCoder blog post",
            "number of samples not stated",
        ),
        Published("DeepSeek-R1", 79.8, "pass@1", _R1, _R1_NOTE),
        Published("DeepSeek-R1-Distill-Qwen-14B", 69.7, "pass@1", _R1, _R1_NOTE),
        Published("DeepSeek-R1-Distill-Qwen-14B", 80.0, "cons@64", _R1, _R1_NOTE),
        Published(
            "DeepSeek-R1-Distill-Qwen-14B, rerun",
            65.9,
            "pass@1",
            "open-r1 (LightEval)",
            "64 samples",
        ),
        Published("DeepSeek-R1-Distill-Qwen-1.5B", 28.9, "pass@1", _R1, _R1_NOTE),
        Published("DeepSeek-R1-Distill-Qwen-1.5B", 52.7, "cons@64", _R1, _R1_NOTE),
        Published(
            "DeepSeek-R1-Distill-Qwen-1.5B, rerun",
            30.7,
            "pass@1",
            "open-r1 (LightEval)",
            "64 samples",
        ),
    ),
)
