"""AIME 2024, I and II: 30 problems whose answers are integers from 0 to 999."""

import dataclasses

from verl_pipeline.evaluation.data import DataFinder, HubFiles, Row
from verl_pipeline.evaluation.task import (
    PublishedResult,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)
from verl_pipeline.evaluation.tasks._prompts import BOXED_INSTRUCTION, REASONING_SAMPLING
from verl_pipeline.evaluation.tasks._rows import read_items

_R1 = "README of DeepSeek-R1"
_R1_NOTE = "64 samples per problem, 32,768 tokens"


def load_problems(finder: DataFinder) -> TaskData:
    """Load all 30 problems from rows with ``problem`` and ``answer``, as rLLM's and the hub's."""
    rows, origin = finder.find_rows(
        ["aime2024", "aime24", "aime_2024"],
        hub=HubFiles("HuggingFaceH4/aime_2024", ("data/*.parquet",)),
    )
    data = read_items(rows, origin, _make_item)
    data.notes.append(
        f"{len(data.items)} problems: with so few problems, more samples hardly narrow the interval"
    )
    return data


def _make_item(number: int, row: Row) -> TaskItem:
    has_numbers = row.get("aime_number") and row.get("problem_number")
    return TaskItem(
        id=(
            f"2024-{'I' * int(row['aime_number'])}-{row['problem_number']}"
            if has_numbers
            else str(row.get("id", number))
        ),
        messages=make_conversation(f"{row['problem']}{BOXED_INSTRUCTION}"),
        answer=str(int(row["answer"])),
        canonical=f"\\boxed{{{int(row['answer'])}}}",
    )


TASK = Task(
    name="aime2024",
    title="AIME 2024",
    load=load_problems,
    size=30,
    sampling=dataclasses.replace(REASONING_SAMPLING, n=64),
    published=(
        PublishedResult(
            "DeepCoder-14B-Preview",
            73.8,
            "pass@1",
            "DeepCoder blog post",
            "number of samples not stated",
        ),
        PublishedResult("DeepSeek-R1", 79.8, "pass@1", _R1, _R1_NOTE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-14B", 69.7, "pass@1", _R1, _R1_NOTE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-14B", 80.0, "cons@64", _R1, _R1_NOTE),
        PublishedResult(
            "DeepSeek-R1-Distill-Qwen-14B, rerun",
            65.9,
            "pass@1",
            "open-r1 (LightEval)",
            "64 samples",
        ),
        PublishedResult("DeepSeek-R1-Distill-Qwen-1.5B", 28.9, "pass@1", _R1, _R1_NOTE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-1.5B", 52.7, "cons@64", _R1, _R1_NOTE),
        PublishedResult(
            "DeepSeek-R1-Distill-Qwen-1.5B, rerun",
            30.7,
            "pass@1",
            "open-r1 (LightEval)",
            "64 samples",
        ),
    ),
)
