"""Rows of tasks in the spellings of exporters."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.helpers.made_up_results import write_rows
from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.tasks import find_task


def load_task(name, folder, **options):
    task = find_task(name)
    return task.load(DataFinder(folder, hub=False), **{**task.options, **options})


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_fields_that_an_exporter_made_text_are_read_alike(tmp_path, write):
    rows = {
        "codeforces": (
            "codeelo",
            {
                "title": "T",
                "description": "D",
                "input": "I",
                "output": "O",
                "examples": [["1", "3"], ["2", "4"]],
                "tags": ["math"],
            },
        ),
        "mbpp": (
            "mbpp_sanitized",
            {"task_id": 20, "prompt": "Add.", "test_list": ["assert f(1) == 2", "assert f(0)"]},
        ),
    }
    for name, (file, row) in rows.items():
        loaded = []
        for form in (row, {k: write(v) if isinstance(v, list) else v for k, v in row.items()}):
            write_rows(tmp_path / f"{file}.jsonl", [form])
            loaded += load_task(name, tmp_path).items
        assert loaded[0] == loaded[1] and len(loaded[0].problem.tests) == 2


def test_a_parquet_file_with_text_for_structs_is_graded_as_training_grades_it(tmp_path):
    tests = {"inputs": ["1"], "outputs": ["1"]}
    row = {
        "data_source": "taco",
        "prompt": [{"role": "user", "content": "Echo."}],
        "reward_model": {"style": "rule", "ground_truth": tests},
        "extra_info": {"index": 0, "name": "echo"},
    }
    loaded = []
    for number, form in enumerate(
        (
            row,
            {
                key: json.dumps(value) if key != "data_source" else value
                for key, value in row.items()
            },
        )
    ):
        path = tmp_path / f"{number}.parquet"
        pyarrow.parquet.write_table(pa.Table.from_pylist([form]), path)
        loaded += load_task("parquet", tmp_path, file=str(path)).items
    assert loaded[0] == loaded[1] and loaded[0].id == "echo"
    assert loaded[0].problem.tests[0].input == "1\n"
