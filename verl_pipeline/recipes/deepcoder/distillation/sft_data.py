"""The SFT data: conversations in the schema of verl's ``MultiTurnSFTDataset``.

Invariant: a file appears under its name by one rename; its bytes follow from the answers and the
version of pyarrow.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from verl_pipeline.evaluation.data import BadData, Row
from verl_pipeline.evaluation.tasks.parquet import load_problems
from verl_pipeline.outputs.files import replace_file
from verl_pipeline.recipes.deepcoder.distillation.teacher_answers import Answer

_MESSAGE = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
SCHEMA = pyarrow.schema(
    [
        ("messages", pyarrow.list_(_MESSAGE)),
        ("name", pyarrow.string()),
        ("sample", pyarrow.int64()),
        ("tokens", pyarrow.int64()),
    ]
)


def read_prompts(file: Path, source: str) -> dict[str, list[dict[str, str]]]:
    """Return the conversations of a parquet file of problems, by the ids of an evaluation."""
    data = load_problems(None, file=str(file), source=source)  # type: ignore[arg-type]
    return {item.id: [dict(message) for message in item.messages] for item in data.items}


def write_sft_rows(
    answers: Iterable[Answer], prompts: dict[str, list[dict[str, str]]], path: Path
) -> int:
    """Write one conversation for each answer, and return their number.

    Raises:
        BadData: an answer is to no problem of the file.
    """
    rows: list[Row] = []
    for answer in answers:
        if answer.problem not in prompts:
            raise BadData(f"{answer.problem}: the teacher answered it, but it is not in the data")
        reply = {"role": "assistant", "content": answer.response}
        rows.append(
            {
                "messages": [*prompts[answer.problem], reply],
                "name": answer.problem,
                "sample": answer.sample,
                "tokens": answer.tokens,
            }
        )
    with replace_file(path) as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), file)
    return len(rows)
