"""Small rows of every source, in the shapes of the hub and of rLLM: what becomes of them, and that
it is gradable.
"""

import base64
import json
import pickle
import zlib
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from recipes.deepcoder.data.data_sources import SOURCES
from recipes.deepcoder.data.ingestion import ingest, locate
from recipes.deepcoder.data.preparation_config import PromptConfig, SourceConfig
from recipes.deepcoder.data.problem_records import Record, Removed
from recipes.deepcoder.data.prompt_length import prompt_of, starter_of
from verl_pipeline.evaluation.data import BadData, DataNotFound, Finder
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.sandbox import Sandbox

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
CALL = "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        return a + b\n"
STDIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PRIVATE = json.dumps([{"input": "3 4", "output": "7", "testtype": "stdin"}])

TACO = {
    "id": 7,
    "question": "Add two numbers.",
    "starter_code": "",
    "input_output": json.dumps(STDIN),
    "difficulty": "EASY",
    "date": "2020-01-02T00:00:00",
    "solutions": [ADD, "print(3)"],
}
PRIME = {
    "problem_id": "vfc_1",
    "task_type": "verifiable_code",
    "prompt": (
        "Solve the following coding problem using the programming language python:\n\nAdd two "
        "numbers."
    ),
    "gold_standard_solution": f"```python\n{ADD}```",
    "verification_info": json.dumps(
        {
            "language": "python",
            "test_cases": [
                {"fn_name": None, "input": "1 2\n", "output": "3\n", "type": "stdin_stdout"},
                {"fn_name": None, "input": "3 4\n", "output": "7\n", "type": "stdin_stdout"},
            ],
        }
    ),
}
LCB = {
    "question_title": "Add",
    "question_content": "Add two numbers.",
    "platform": "atcoder",
    "question_id": "abc301_a",
    "contest_id": "abc301",
    "contest_date": "2023-05-13T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]),
    "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(PRIVATE))).decode(),
    "metadata": "{}",
}
LCB_CALL = {
    **LCB,
    "question_id": "2727",
    "platform": "leetcode",
    "starter_code": "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        ",
    "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
    "private_test_cases": json.dumps([{"input": "3\n4", "output": "7", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "add_two"}),
}
CODEFORCES = {
    "id": "1/A",
    "contest_start": 1683979200,
    "title": "Add",
    "description": "Add two numbers.",
    "input_format": "Two numbers.",
    "output_format": "Their sum.",
    "interaction_format": None,
    "note": None,
    "examples": [{"input": "1 2", "output": "3"}],
    "rating": 800,
    "official_tests": [{"input": "1 2", "output": "3"}, {"input": "3 4", "output": "7"}],
    "official_tests_complete": True,
    "input_mode": "stdio",
    "generated_checker": None,
}
APPS = {
    "problem_id": 0,
    "question": "Add two numbers.",
    "solutions": json.dumps([ADD]),
    "input_output": json.dumps(STDIN),
    "difficulty": "introductory",
    "url": "",
    "starter_code": "",
}
CODE_CONTESTS = {
    "name": "1_A. Add",
    "description": "Add two numbers.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
    "generated_tests": {"input": ["5 6\n"], "output": ["11\n"]},
    "difficulty": 1,
    "solutions": {"language": [1, 2, 3], "solution": ["print input()", "int main() {}", ADD]},
    "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
    "input_file": "",
    "output_file": "",
}
LEETCODE = {
    "task_id": "add",
    "question_id": 1,
    "difficulty": "Easy",
    "problem_description": "Add two numbers.",
    "starter_code": "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        ",
    "estimated_date": "2015-08-07",
    "prompt": "from typing import *\n",
    "completion": CALL,
    "entry_point": "Solution().add_two",
    "test": (
        "def check(candidate):\n    assert candidate(a = 1, b = 2) == 3\n    assert candidate(a = "
        "3, b = 4) == 7\n"
    ),
}
KODCODE = {
    "version": "v1.1",
    "style": "instruct",
    "subset": "Prefill",
    "question_id": "Prefill_1_I",
    "question": "Add two numbers.",
    "solution": "def add_two(a, b):\n    return a + b\n",
    "test": (
        "from solution import add_two\n\ndef test_one():\n    assert add_two(1, 2) == 3\n\n"
        "def test_two():\n    assert add_two(3, 4) == 7\n"
    ),
    "gpt_difficulty": "easy",
}
MBPP = {
    "task_id": 601,
    "prompt": "Write a function to add two numbers.",
    "code": "def add_two(a, b):\n    return a + b",
    "test_imports": [],
    "test_list": [
        "assert add_two(1, 2) == 3",
        "assert add_two(3, 4) == 7",
        "assert add_two(0, 0) == 0",
    ],
}
RLLM_LEETCODE = {
    "problem": (
        "Please solve the programming task below using a self-contained code snippet in a markdown "
        "code block.\n\nAdd two numbers.\n\nPlease complete the following python code "
        "precisely:\n```python\nclass Solution:\n    def add_two(self, a: int, b: int) -> "
        "int:\n```"
    ),
    "solutions": CALL,
    "tests": {"functional": f"{LEETCODE['test']}\n\ncheck(Solution().add_two)"},
}
QUICKSTART = {
    "name": "add",
    "split": "train",
    "difficulty": "easy",
    "prompt": "Add two numbers.",
    "entry_point": "add_two",
    "reference": "def add_two(a, b):\n    return a + b",
    "tests": [{"args": [1, 2], "expected": 3}, {"args": [3, 4], "expected": 7}],
}

# source, row, id, tests, solutions, and a solution where the source has none
HUB = [
    ("taco", TACO, "taco/7", 2, 2, None),
    ("primeintellect", PRIME, "primeintellect/vfc_1", 2, 1, None),
    ("livecodebench", LCB, "livecodebench/abc301_a", 2, 0, ADD),
    ("livecodebench", LCB_CALL, "livecodebench/2727", 2, 0, CALL),
    ("codeforces", CODEFORCES, "codeforces/1/A", 2, 0, ADD),
    ("apps", APPS, "apps/0", 2, 1, None),
    ("code_contests", CODE_CONTESTS, "code_contests/1_A. Add", 3, 1, None),
    ("leetcode", LEETCODE, "leetcode/add", 2, 1, None),
    ("kodcode", KODCODE, "kodcode/Prefill_1_I", 2, 1, None),
    ("mbpp", MBPP, "mbpp/601", 3, 1, None),
    ("quickstart", QUICKSTART, "quickstart/add", 2, 1, None),
    # rLLM's
    ("taco", {"problem": "Add.", "tests": STDIN}, "taco/rows.jsonl:1", 2, 0, ADD),
    (
        "code_contests",
        {"problem": "Add.", "tests": json.dumps(STDIN)},
        "code_contests/rows.jsonl:1",
        2,
        0,
        ADD,
    ),
    ("leetcode", RLLM_LEETCODE, "leetcode/rows.jsonl:1", 2, 1, None),
    (
        "codeforces",
        {"problem": "Add.", "tests": CODEFORCES["official_tests"]},
        "codeforces/rows.jsonl:1",
        2,
        0,
        ADD,
    ),
    (
        "primeintellect",
        {
            "problem": "Add.",
            "tests": json.loads(PRIME["verification_info"])["test_cases"],
            "solutions": [ADD],
        },
        "primeintellect/rows.jsonl:1",
        2,
        1,
        None,
    ),
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as one:
        yield one


def read(source: str, path: Path, **settings) -> list[Record | Removed]:
    return list(ingest(source, SourceConfig(**settings), [path], lambda: None))


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("source, row, identity, tests, solutions, right", HUB)
def test_a_row_becomes_a_problem_that_a_right_program_passes(
    tmp_path, sandbox, source, row, identity, tests, solutions, right
):
    [record] = read(source, jsonl(tmp_path, row))
    assert isinstance(record, Record), record
    assert (record.id, record.test_count, len(record.solutions)) == (identity, tests, solutions)
    assert "Add" in record.question or "add" in record.question
    assert record.origin == "rows.jsonl:1"
    program = right or record.solutions[0]
    assert grade(record.problem(), program, sandbox).verdict is Verdict.ACCEPTED
    wrong = program.replace("a + b", "a - b")
    assert grade(record.problem(), wrong, sandbox).verdict is Verdict.WRONG_ANSWER
    text = prompt_of(record, PromptConfig())[-1]["content"]
    assert all(name in text for name in record.calls) or source == "quickstart"


def test_every_source_has_a_row_of_the_hubs_shape_here():
    for name, source in SOURCES.items():
        first = source.shapes[0]
        assert any(one == name and first.required <= row.keys() for one, row, *_ in HUB), name


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "arrow"])
@pytest.mark.parametrize("source, row", [(source, row) for source, row, *_ in HUB[:11]])
def test_a_row_is_the_same_in_every_format(tmp_path, source, row, suffix):
    path = tmp_path / f"rows.{suffix}"
    table = pyarrow.Table.from_pylist([row])
    if suffix == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    elif suffix == "json":
        path.write_text(json.dumps([row]))
    elif suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with (
            pyarrow.OSFile(str(path), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    [record] = read(source, path)
    folder = tmp_path / "plain"
    folder.mkdir()
    [plain] = read(source, jsonl(folder, row))
    assert record == Record(**{**vars(plain), "origin": f"rows.{suffix}:1"})


def test_only_contests_of_the_window_are_taken(tmp_path):
    days = ["2023-04-30", "2023-05-01", "2024-07-31T12:00:00", "2024-08-01"]
    rows = [{**LCB, "question_id": day, "contest_date": day} for day in days]
    found = read("livecodebench", jsonl(tmp_path, *rows), start="2023-05-01", end="2024-08-01")
    assert [isinstance(row, Record) for row in found] == [False, True, True, False]
    assert {row.reason for row in found if isinstance(row, Removed)} == {"outside the window"}


@pytest.mark.parametrize(
    "source, row, reason",
    [
        ("primeintellect", {**PRIME, "task_type": "verifiable_math"}, "task_type verifiable_math"),
        ("codeforces", {**CODEFORCES, "interaction_format": "Ask."}, "interactive"),
        (
            "codeforces",
            {**CODEFORCES, "official_tests_complete": False},
            "official tests cut by the source",
        ),
        ("code_contests", {**CODE_CONTESTS, "input_file": "in.txt"}, "reads or writes a file"),
        (
            "leetcode",
            {**LEETCODE, "test": "def check(c):\n    c(list_node([1]))\n"},
            "tests build nodes",
        ),
        ("taco", {**TACO, "input_output": "{"}, "broken row"),
        ("taco", {**TACO, "input_output": json.dumps({"inputs": [], "outputs": []})}, "broken row"),
        ("taco", {**TACO, "question": "  "}, "broken row"),
        ("taco", {**TACO, "solutions": [1]}, "broken row"),
        ("livecodebench", {**LCB, "contest_date": "soon"}, "broken row"),
        ("livecodebench", {**LCB, "private_test_cases": "?"}, "broken row"),
        ("kodcode", {**KODCODE, "test": "assert True"}, "broken row"),
    ],
)
def test_a_row_that_is_no_problem_is_listed_with_the_reason(tmp_path, source, row, reason):
    good = next(row for name, row, *_ in HUB if name == source)
    first, second = read(source, jsonl(tmp_path, good, row))
    assert isinstance(first, Record) and isinstance(second, Removed)
    assert second.reason == reason and second.detail
    assert reason != "broken row" or second.id == f"{source}/rows.jsonl:2"


def test_a_pickle_with_more_than_text_is_refused_and_never_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "hacked",))

    packed = base64.b64encode(zlib.compress(pickle.dumps(Attack()))).decode()
    _, row = read("livecodebench", jsonl(tmp_path, LCB, {**LCB, "private_test_cases": packed}))
    assert isinstance(row, Removed) and "only text is allowed" in row.detail
    assert not (tmp_path / "hacked").exists()


def test_a_checker_makes_a_problem_one_of_several_answers(tmp_path):
    [record] = read(
        "codeforces", jsonl(tmp_path, {**CODEFORCES, "generated_checker": "def check(): ..."})
    )
    assert isinstance(record, Record) and record.multi_answer


def test_two_rows_of_one_id_are_two_records(tmp_path):
    first, second = read("taco", jsonl(tmp_path, TACO, TACO))
    assert (first.id, second.id) == ("taco/7", "taco/7@rows.jsonl:2")


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "quickstart"])
def test_another_schema_is_refused_naming_the_fields(tmp_path, source):
    with pytest.raises(
        BadData,
        match=rf"rows.jsonl: no row has the shape of {source}: no field .*it has text, label",
    ):
        read(source, jsonl(tmp_path, {"text": "?", "label": 1}))


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "quickstart"])
def test_data_that_is_nowhere_names_the_local_files_that_would_do(tmp_path, source):
    finder = Finder(tmp_path, hub=False)
    with pytest.raises(
        DataNotFound, match=rf"Put {SOURCES[source].stems[0]}.jsonl .*it is what .*publishes"
    ):
        locate(source, SourceConfig(), finder)


def test_the_packages_own_problems_need_no_file():
    files, _ = locate("quickstart", SourceConfig(), Finder(None, hub=False))
    found = list(ingest("quickstart", SourceConfig(), files, lambda: None))
    assert len(found) == 275 and all(isinstance(row, Record) for row in found)
    # As it is, with its empty system message.
    assert [message["role"] for message in prompt_of(found[0], PromptConfig(system="x"))] == [
        "system",
        "user",
    ]


def test_a_starter_shows_the_heads_and_nothing_of_the_bodies():
    assert (
        starter_of(["add_two"], [CALL])
        == "class Solution:\n    def add_two(self, a: int, b: int) -> int:"
    )
    assert (
        starter_of(["f"], ["def f(x, *y, z=1):\n    secret = 1\n    return secret"])
        == "def f(x, *y, z=1):"
    )
    assert starter_of(["f"], ["no python(", "def g(): pass"]) == "def f(...):"
    queue = (
        "class Queue:\n    def __init__(self): self.a = []\n    def _hidden(self): pass\n    def "
        "pop(self): return 1"
    )
    assert (
        starter_of(["Queue"], [queue])
        == "class Queue:\n    def __init__(self):\n    def pop(self):"
    )
