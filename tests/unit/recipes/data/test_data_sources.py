"""Every data source: its rows become problems that can be graded, and missing data is named."""

import gzip
import json

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.helpers.source_rows import (
    HUB_EXAMPLES,
    RLLM_EXAMPLES,
    ingest_file,
    write_jsonl,
)
from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.ingestion import ingest_rows, locate_files
from verl_pipeline.recipes.deepcoder.data.preparation_config import PromptConfig, SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.data.prompt_length import build_prompt
from verl_pipeline.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "source, row, record_id, test_count, solution_count, right", [*HUB_EXAMPLES, *RLLM_EXAMPLES]
)
def test_a_row_becomes_a_problem_that_a_right_program_passes(
    tmp_path, sandbox, source, row, record_id, test_count, solution_count, right
):
    [record] = ingest_file(source, write_jsonl(tmp_path, row))
    assert isinstance(record, ProblemRecord), record
    assert record.id == record_id
    assert (record.test_count, len(record.solutions)) == (test_count, solution_count)
    assert "Add" in record.question or "add" in record.question
    assert record.origin == "rows.jsonl:1"
    program = right or record.solutions[0]
    assert grade(record.read_problem(), program, sandbox).verdict is Verdict.ACCEPTED
    wrong = program.replace("a + b", "a - b")
    assert grade(record.read_problem(), wrong, sandbox).verdict is Verdict.WRONG_ANSWER
    text = build_prompt(record, PromptConfig())[-1]["content"]
    assert all(name in text for name in record.calls) or source == "quickstart"


def test_every_source_has_an_example_in_the_hubs_format():
    for name, source in SOURCES.items():
        hub_format = source.row_formats[0]
        rows = [row for one, row, *_ in HUB_EXAMPLES if one == name]
        assert any(hub_format.required_fields <= row.keys() for row in rows), name


@pytest.mark.parametrize("suffix", ["jsonl", "json", "jsonl.gz", "json.gz", "parquet", "arrow"])
@pytest.mark.parametrize("source, row", [(source, row) for source, row, *_ in HUB_EXAMPLES])
def test_a_row_is_the_same_in_every_file_format(tmp_path, source, row, suffix):
    path = tmp_path / f"rows.{suffix}"
    table = pyarrow.Table.from_pylist([row])
    if suffix.startswith("json"):
        text = json.dumps(row) + "\n" if suffix.startswith("jsonl") else json.dumps([row])
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    elif suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with (
            pyarrow.OSFile(str(path), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    [record] = ingest_file(source, path)
    folder = tmp_path / "jsonl"
    folder.mkdir()
    [expected] = ingest_file(source, write_jsonl(folder, row))
    assert record == ProblemRecord(**{**vars(expected), "origin": f"rows.{suffix}:1"})


@pytest.mark.parametrize("source", [name for name in SOURCES if SOURCES[name].hub])
def test_missing_data_is_refused_with_the_local_files_that_are_needed(tmp_path, source):
    finder = DataFinder(tmp_path, hub=False)
    with pytest.raises(
        DataNotFound,
        match=rf"Put {SOURCES[source].file_stems[0]}.jsonl .*publishes the file",
    ):
        locate_files(source, SourceConfig(), finder)


def test_a_rejected_candidate_of_a_generation_is_removed_with_its_reason(tmp_path):
    row = {"id": "3", "question": "", "tests": {}, "solutions": [], "generation": {}}
    row["skip_reason"] = "too few tests: 3 of 48 inputs"

    [removed] = ingest_file("codeio", write_jsonl(tmp_path, row))

    assert (removed.id, removed.reason) == ("codeio/3", "too few tests")
    assert removed.detail == "too few tests: 3 of 48 inputs"


def test_the_problems_of_the_package_need_no_file():
    files, _ = locate_files("quickstart", SourceConfig(), DataFinder(None, hub=False))
    records = list(ingest_rows("quickstart", SourceConfig(), files, lambda: None))
    assert len(records) == 275 and all(isinstance(row, ProblemRecord) for row in records)
    # The source's own conversation, with its empty system message, is not changed.
    messages = build_prompt(records[0], PromptConfig(system="x"))
    assert [message["role"] for message in messages] == ["system", "user"]
