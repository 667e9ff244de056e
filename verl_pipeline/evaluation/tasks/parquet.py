"""A parquet file in verl's schema, graded as in training: the validation set of a run.

``options.parquet.file=PATH``; ``source=NAME`` if ``data_source`` is not the name of a reader;
``grader=math`` for answers instead of tests. It counts as a validation split: what a run validates
on is what it may choose by.
"""

import functools
from pathlib import Path

from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.data import DataNotFound, Finder, Row, read_rows
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task
from verl_pipeline.evaluation.tasks._reading import CODE_PREFILL, read_all
from verl_pipeline.grading.readers import READERS, BadRow


def load(finder: Finder, file: str = "", source: str = "", grader: str = "code") -> Loaded:
    """All rows of ``file``.

    Raises:
        DataNotFound: no such file.
        BadSetting: ``grader`` is neither ``code`` nor ``math``.
    """
    if not file or not Path(file).is_file():
        raise DataNotFound(
            f"options.parquet.file={file!r}: name a parquet file in verl's schema (the run's "
            "data.val_files)"
        )
    if grader not in ("code", "math"):
        raise BadSetting(f"options.parquet.grader={grader!r}: must be 'code' or 'math'")
    return read_all(
        read_rows(Path(file)), file, functools.partial(_item, source=source, grader=grader)
    )


def _item(number: int, row: Row, *, source: str, grader: str) -> Item:
    name = str((row.get("extra_info") or {}).get("name") or f"row-{number}")
    messages = tuple(
        {"role": message["role"], "content": message["content"]} for message in row["prompt"]
    )
    truth = row["reward_model"]["ground_truth"]
    tags = {"source": str(row["data_source"])}
    if grader == "math":
        return Item(name, messages, answer=str(truth), canonical=f"\\boxed{{{truth}}}", tags=tags)
    reader = source or str(row["data_source"])
    if reader not in READERS:
        raise BadRow(
            f"data_source {reader!r} has no reader; set options.parquet.grader=math if ground_truth"
            f" is an answer, or options.parquet.source to one of {', '.join(sorted(READERS))}"
        )
    return Item(
        name,
        messages,
        problem=READERS[reader](truth, name=name, source=reader),
        prefill=CODE_PREFILL,
        tags=tags,
    )


TASK = Task(
    name="parquet",
    title="A parquet file in verl's schema",
    load=load,
    sampling=Sampling(n=4, temperature=1.0, top_p=1.0),
    options={"file": "", "source": "", "grader": "code"},
    split="validation",
)
