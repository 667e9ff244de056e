"""Rows that do not become a record: each is listed with its reason, or the file is refused."""

import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

from tests.helpers.source_rows import (
    CODE_CONTESTS_ROW,
    CODEFORCES_ROW,
    HUB_EXAMPLES,
    KODCODE_ROW,
    LEETCODE_ROW,
    LIVECODEBENCH_ROW,
    PRIMEINTELLECT_ROW,
    TACO_ROW,
    ingest_file,
    write_jsonl,
)
from verl_pipeline.evaluation.data import BadData
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord, RemovedRow


def test_only_contests_of_the_window_are_read(tmp_path):
    days = ["2023-04-30", "2023-05-01", "2024-07-31T12:00:00", "2024-08-01"]
    rows = [{**LIVECODEBENCH_ROW, "question_id": day, "contest_date": day} for day in days]
    path = write_jsonl(tmp_path, *rows)
    results = ingest_file("livecodebench", path, start="2023-05-01", end="2024-08-01")
    assert [isinstance(row, ProblemRecord) for row in results] == [False, True, True, False]
    reasons = {row.reason for row in results if isinstance(row, RemovedRow)}
    assert reasons == {"outside the window"}


@pytest.mark.parametrize(
    "source, row, reason",
    [
        (
            "primeintellect",
            {**PRIMEINTELLECT_ROW, "task_type": "verifiable_math"},
            "task_type verifiable_math",
        ),
        ("codeforces", {**CODEFORCES_ROW, "interaction_format": "Ask."}, "interactive"),
        (
            "codeforces",
            {**CODEFORCES_ROW, "official_tests_complete": False},
            "official tests cut by the source",
        ),
        ("code_contests", {**CODE_CONTESTS_ROW, "input_file": "in.txt"}, "reads or writes a file"),
        (
            "leetcode",
            {**LEETCODE_ROW, "test": "def check(c):\n    assert c(graph_node([1])) == 1\n"},
            "broken row",
        ),
        ("taco", {**TACO_ROW, "input_output": "{"}, "broken row"),
        (
            "taco",
            {**TACO_ROW, "input_output": json.dumps({"inputs": [], "outputs": []})},
            "broken row",
        ),
        ("taco", {**TACO_ROW, "question": "  "}, "broken row"),
        ("taco", {**TACO_ROW, "solutions": [1]}, "broken row"),
        ("livecodebench", {**LIVECODEBENCH_ROW, "contest_date": "soon"}, "broken row"),
        ("livecodebench", {**LIVECODEBENCH_ROW, "private_test_cases": "?"}, "broken row"),
        ("kodcode", {**KODCODE_ROW, "test": "assert True"}, "broken row"),
    ],
)
def test_an_unusable_row_is_listed_with_the_reason(tmp_path, source, row, reason):
    usable = next(row for name, row, *_ in HUB_EXAMPLES if name == source)
    first, second = ingest_file(source, write_jsonl(tmp_path, usable, row))
    assert isinstance(first, ProblemRecord) and isinstance(second, RemovedRow)
    assert second.reason == reason and second.detail
    assert reason != "broken row" or second.id == f"{source}/rows.jsonl:2"


def test_a_pickle_with_more_than_text_is_refused_and_never_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "hacked",))

    packed = base64.b64encode(zlib.compress(pickle.dumps(Attack()))).decode()
    hostile = {**LIVECODEBENCH_ROW, "private_test_cases": packed}
    _, row = ingest_file("livecodebench", write_jsonl(tmp_path, LIVECODEBENCH_ROW, hostile))
    assert isinstance(row, RemovedRow) and "only text is allowed" in row.detail
    assert not (tmp_path / "hacked").exists()


def test_a_problem_with_a_checker_counts_as_having_several_answers(tmp_path):
    row = {**CODEFORCES_ROW, "generated_checker": "def check(): ..."}
    [record] = ingest_file("codeforces", write_jsonl(tmp_path, row))
    assert isinstance(record, ProblemRecord) and record.multi_answer


def test_two_rows_with_the_same_id_become_two_records(tmp_path):
    first, second = ingest_file("taco", write_jsonl(tmp_path, TACO_ROW, TACO_ROW))
    assert (first.id, second.id) == ("taco/7", "taco/7@rows.jsonl:2")


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "quickstart"])
def test_a_file_in_an_unknown_format_is_refused_with_the_missing_fields(tmp_path, source):
    with pytest.raises(
        BadData,
        match=rf"rows.jsonl: no row has a known format of {source}: no field .*it has text, label",
    ):
        ingest_file(source, write_jsonl(tmp_path, {"text": "?", "label": 1}))
