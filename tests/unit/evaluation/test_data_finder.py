"""Data files: where they are searched, and which formats are read."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.helpers.made_up_results import write_rows
from verl_pipeline.evaluation.data import (
    SUFFIXES,
    BadData,
    DataFinder,
    DataNotFound,
    HubFiles,
    PackageFile,
    read_rows,
)
from verl_pipeline.evaluation.tasks import find_task
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.recipes.deepcoder.data.row_files import read_numbered_rows


def test_missing_data_lists_the_places_searched_and_the_fix(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PIPELINE_DATA", raising=False)
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
    for name in ("lines.jsonl", "list.json"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
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
    names = ("lines.jsonl", "list.json", "t.parquet", "s.arrow", "f.arrow")
    for name in (*names, "lines.jsonl.gz", "list.json.gz"):
        assert list(read_rows(tmp_path / name)) == rows, name
        assert [row for _number, row in read_numbered_rows(tmp_path / name)] == rows, name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_found_by_every_suffix_that_is_read(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.touch()
    assert DataFinder(tmp_path, hub=False).find_files(["other", "rows"]) == ([path], str(path))


@pytest.mark.parametrize("name", [f"x{suffix}" for suffix in SUFFIXES])
@pytest.mark.parametrize(
    "content", [b"{broken", b"\xff\xfe", b"[1]\n", b"5\n", gzip.compress(b"[]", mtime=0)[:-9]]
)
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=name):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize("old, new", [(b"", b"\xef\xbb\xbf"), (b"\n", b"\r\n"), (b"1", b"")])
def test_a_damaged_table_is_named_without_internal_names(tmp_path, old, new):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": ["1\n" * 9] * 9}), path, compression="none")
    content = path.read_bytes()
    path.write_bytes(content.replace(old, new) if old else new + content)
    with pytest.raises(BadData, match="t.parquet") as refused:
        list(read_rows(path))
    assert "Exception" not in str(refused.value)


def test_json_lines_end_at_newlines_only_and_may_have_a_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y\u0085z"}\n{"a":\r"b"}\r\n'.encode())
    assert [row["a"] for row in read_rows(path)] == ["x\u2028y\u0085z", "b"]
    assert [row["a"] for _number, row in read_numbered_rows(path)] == ["x\u2028y\u0085z", "b"]


def test_rows_with_long_integers_are_read_and_repeated_keys_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": {"7" * 5000}}}\n')
    assert [row["a"] for row in read_rows(path)] == [7 * (10**5000 - 1) // 9]
    path.write_text('{"a": 1, "a": 2}\n')
    with pytest.raises(BadData, match="twice"):
        list(read_rows(path))
    [(_number, row)] = read_numbered_rows(path)
    assert isinstance(row, BadRow)


def test_a_parquet_file_of_mixed_types_is_read_as_verl_reads_it(tmp_path):
    """`datasets` stores such values as JSON text and notes that in the file's metadata."""
    tests = {"fn_name": "f", "inputs": [[1, "a", [2]], ["3", None, []]], "outputs": [[True], [1]]}
    row = {"tests": tests, "text": '"a"', "none": None}
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([row], on_mixed_types="use_json").to_parquet(path)
    [stored] = pyarrow.parquet.read_table(path).to_pylist()
    assert stored["tests"]["inputs"][0][1] != "a", "no value is stored as JSON"
    as_verl = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=tmp_path / "cache"
    )[0]
    assert list(read_rows(path)) == [as_verl]
    assert [row for _number, row in read_numbered_rows(path)] == [as_verl]
    assert as_verl["tests"]["inputs"][0] == [1, "a", [2]]
