"""Data files: where they are searched, and which formats are read."""

import json

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.helpers.made_up_results import write_rows
from verl_pipeline.evaluation.data import (
    BadData,
    DataFinder,
    DataNotFound,
    HubFiles,
    PackageFile,
    read_rows,
)
from verl_pipeline.evaluation.tasks import find_task


def test_missing_data_lists_the_places_searched_and_the_fix(tmp_path):
    with pytest.raises(
        DataNotFound, match=r"humanevalplus.*evalplus/humanevalplus: not searched.*--data"
    ):
        find_task("humaneval_plus").load(DataFinder(tmp_path, hub=False))
    with pytest.raises(DataNotFound, match="no such folder"):
        find_task("humaneval").load(DataFinder(tmp_path / "typo", hub=False))
    finder = DataFinder(None, hub=False)
    with pytest.raises(
        DataNotFound, match=r"no folder of local files.*pip install no-such-package"
    ):
        finder.find_rows(
            ["x"],
            PackageFile("no-such-package", "no_such_module", "x.jsonl"),
            HubFiles("a/b", ("*",)),
        )


def test_every_format_is_read(tmp_path):
    rows = [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]
    write_rows(tmp_path / "lines.jsonl", rows)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with (
        pyarrow.OSFile(str(tmp_path / "s.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    with (
        pyarrow.OSFile(str(tmp_path / "f.arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    for name in ("lines.jsonl", "list.json", "t.parquet", "s.arrow", "f.arrow"):
        assert list(read_rows(tmp_path / name)) == rows, name


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.parquet", "x.arrow", "x.jsonl.gz"])
@pytest.mark.parametrize("content", [b"{broken", b"\xff\xfe", b"[1]\n", b"5\n"])
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=name):
        list(read_rows(tmp_path / name))
