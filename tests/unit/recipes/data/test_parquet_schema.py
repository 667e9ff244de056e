"""Parquet files of this and other versions, of users, and broken ones."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from verl_pipeline.recipes.deepcoder.data import parquet_schema
from verl_pipeline.recipes.deepcoder.data.parquet_schema import (
    METADATA_KEY,
    SCHEMA,
    ParquetFileError,
    SchemaVersionError,
    check_parquet,
    write_parquet,
)

ROW = {
    "data_source": "taco",
    "prompt": [{"role": "user", "content": "?"}],
    "ability": "code",
    "reward_model": {"style": "rule", "ground_truth": "{}"},
    "extra_info": {
        name: None for name in (field.name for field in SCHEMA.field("extra_info").type)
    },
}


def test_a_written_file_is_accepted_and_its_bytes_are_reproducible(tmp_path):
    for name in ("a", "b"):
        write_parquet([ROW], tmp_path / f"{name}.parquet", "settings")
        assert check_parquet(tmp_path / f"{name}.parquet") is None
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_failed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet([ROW], path, "settings")
    before = path.read_bytes()
    with pytest.raises((pyarrow.ArrowInvalid, pyarrow.ArrowTypeError)):
        write_parquet([{**ROW, "ability": 3}], path, "settings")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("written, advice", [(1, "run prepare again"), (3, "update the recipe")])
def test_a_file_of_another_version_is_refused_with_its_version(
    tmp_path, monkeypatch, written, advice
):
    path = tmp_path / "a.parquet"
    monkeypatch.setattr(parquet_schema, "SCHEMA_VERSION", written)
    write_parquet([ROW], path, "settings")
    monkeypatch.setattr(parquet_schema, "SCHEMA_VERSION", 2)
    with pytest.raises(
        SchemaVersionError,
        match=f"was written by version {written} of the recipe, this is 2: {advice}",
    ):
        check_parquet(path)


def test_a_users_own_file_is_accepted_with_a_note(tmp_path):
    path = tmp_path / "own.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**ROW, "more": 1}]), path)
    assert "not written by the recipe" in (check_parquet(path) or "")


@pytest.mark.parametrize("has_metadata", [False, True])
def test_missing_columns_are_named(tmp_path, has_metadata):
    path = tmp_path / "own.parquet"
    table = pyarrow.Table.from_pylist([{"data_source": "taco", "prompt": ROW["prompt"]}])
    if has_metadata:
        table = table.replace_schema_metadata(
            {METADATA_KEY: json.dumps({"schema_version": parquet_schema.SCHEMA_VERSION})}
        )
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(ParquetFileError, match="no column ability, reward_model, extra_info"):
        check_parquet(path)


@pytest.mark.parametrize("content", [None, b"", b"other content"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        ParquetFileError, match="no such file" if content is None else "not a parquet file"
    ):
        check_parquet(path)


def test_unreadable_metadata_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_pylist([ROW], schema=SCHEMA.with_metadata({METADATA_KEY: b"?"}))
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(ParquetFileError, match="its metadata .* cannot be read"):
        check_parquet(path)
