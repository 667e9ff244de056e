"""One row's tests in the spellings of exporters, and the four doors that read them."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pyarrow

from verl_pipeline.evaluation.row_graders import RowGrader
from verl_pipeline.evaluation.tasks.parquet import _make_item
from verl_pipeline.grading import Problem
from verl_pipeline.grading.grading_inputs import read_problems
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.ingestion import _build_record
from verl_pipeline.recipes.deepcoder.data.preparation_config import SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.data.rllm_formats import read_rllm
from verl_pipeline.rewards import code

NAME = "row"


@contextmanager
def unlimited_digits() -> Iterator[None]:
    """Let Python write integers of any length, for the text of a row only."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def write_json(value: Any, **settings: Any) -> str:
    """Write JSON with integers of any length."""
    with unlimited_digits():
        return json.dumps(value, **settings)


def write_python(value: Any) -> str:
    """Write the ``repr`` with integers of any length."""
    with unlimited_digits():
        return repr(value)


def make_arrays(value: Any) -> Any:
    """Make what pandas makes of a parquet file: arrays of objects and numpy's scalars."""
    if isinstance(value, dict):
        return {key: make_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        array = numpy.empty(len(value), dtype=object)
        for index, item in enumerate(value):
            array[index] = make_arrays(item)
        return array
    if isinstance(value, bool):
        return numpy.bool_(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return numpy.int64(value)
    return numpy.float64(value) if isinstance(value, float) else value


def split_objects(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn an object of lists into a list of objects."""
    function = {"fn_name": value["fn_name"]} if value.get("fn_name") else {}
    pairs = zip(value["inputs"], value["outputs"], strict=True)
    return [{"input": one, "output": two, **function} for one, two in pairs]


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "value": lambda value: value,
    "json": write_json,
    "json, unescaped": lambda value: write_json(value, ensure_ascii=False),
    "json, indented": lambda value: write_json(value, indent=2),
    "json as bytes with a mark": lambda value: b"\xef\xbb\xbf" + write_json(value).encode(),
    "json within json": lambda value: write_json(write_json(value)),
    "json within repr": lambda value: write_python(write_json(value)),
    "repr": write_python,
    "arrays": make_arrays,
    "tuples": lambda value: tuple(value) if isinstance(value, list) else dict(value),
    "repr of objects": lambda value: write_python(split_objects(value)),
    "objects": lambda value: split_objects(value),
    "objects as arrays": lambda value: make_arrays(split_objects(value)),
    "objects, each as json": lambda value: list(map(write_json, split_objects(value))),
    "fields as json": lambda value: {
        key: write_json(item) if isinstance(item, list) else item for key, item in value.items()
    },
    "other names": lambda value: {
        {"inputs": "input", "outputs": "output"}.get(key, key): item for key, item in value.items()
    },
    "with nulls": lambda value: {"fn_name": None, "metadata": None, **value},
    "the whole row": lambda value: {"question": "Q", "input_output": write_json(value)},
}


def spell_with_arrow(value: dict[str, Any]) -> dict[str, Any]:
    """Return what pyarrow and pandas give for a struct; for tests on standard input only."""
    table = pyarrow.Table.from_pylist([{"tests": value}])
    return {
        "scalar": table["tests"][0],
        "list": table.to_pylist()[0]["tests"],
        "frame": table.to_pandas()["tests"][0],
        "dictionary of arrays": {key: table["tests"][0][key].values for key in value},
    }


def read_through_doors(source: str, tests: Any, folder: Path) -> dict[str, Problem | BadRow]:
    """Read a row as the reward, the evaluation and the recipe do, and, if it is JSON, ``grade``."""
    doors: dict[str, Callable[[], Problem | None]] = {
        "reward": lambda: code._read_problem(source, code._freeze(tests), "all", NAME),
        "evaluation": lambda: (
            _make_item(0, _make_row(source, tests), grader=RowGrader("code")).problem
        ),
        "recipe": lambda: _prepare(source, tests),
    }
    try:
        line = write_json({"id": NAME, "source": source, "tests": tests})
    except TypeError:
        pass
    else:
        doors["grade"] = lambda: _read_line(folder, line)
    results = {}
    for name, read in doors.items():
        try:
            problem = read()
            assert problem is not None
            results[name] = replace(problem, name=NAME)
        except ValueError as error:
            results[name] = BadRow(str(error))
    return results


def _make_row(source: str, tests: Any) -> dict[str, Any]:
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": "Q"}],
        "reward_model": {"ground_truth": tests},
        "extra_info": json.dumps({"name": NAME}),
    }


def _prepare(source: str, tests: Any) -> Problem:
    raw = read_rllm({"problem": "Q", "tests": tests})
    record = _build_record(source, SOURCES[source], raw, "origin", SourceConfig())
    assert isinstance(record, ProblemRecord)
    record.tests.encode()  # parquet stores UTF-8
    return record.read_problem()


def _read_line(folder: Path, line: str) -> Problem:
    path = folder / "problems.jsonl"
    path.write_text(f"{line}\n")
    file = read_problems(path)
    if file.bad_lines:
        raise BadRow(file.bad_lines[0].reason)
    return file.problems[NAME]
