"""Parquet files in the schema of verl's own data preparation, and answers to their rows."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

INSTRUCTION = "Let's think step by step and output the final answer after"


def make_row(index: int, data_source: str, ground_truth: Any, **extra_info: Any) -> dict[str, Any]:
    """A row as verl's GSM8K example writes it; it has no name, so its id is ``row-<number>``."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": f'Question {index}? {INSTRUCTION} "####".'}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {"split": "test", "index": index, **extra_info},
    }


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_gsm8k(path: Path, truths: Sequence[str]) -> Path:
    rows = [make_row(i, "openai/gsm8k", truth) for i, truth in enumerate(truths)]
    return write_parquet(path, rows)


def write_answers(path: Path, responses: Iterable[str]) -> Path:
    """One answer to each row, in the order of the rows."""
    lines = [{"id": f"row-{i}", "response": text} for i, text in enumerate(responses)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
