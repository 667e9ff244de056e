"""Small example rows of every data source, in the formats of the hub and of rLLM."""

import base64
import json
import pickle
import zlib
from pathlib import Path

from verl_pipeline.recipes.deepcoder.data.ingestion import ingest_rows
from verl_pipeline.recipes.deepcoder.data.preparation_config import SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord, RemovedRow


def pack_tests(text: str) -> str:
    """Pack text as LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


ADD_PROGRAM = "a, b = map(int, input().split())\nprint(a + b)\n"
ADD_METHOD = (
    "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        return a + b\n"
)
STDIN_TESTS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PRIVATE_TESTS = json.dumps([{"input": "3 4", "output": "7", "testtype": "stdin"}])

TACO_ROW = {
    "id": 7,
    "question": "Add two numbers.",
    "starter_code": "",
    "input_output": json.dumps(STDIN_TESTS),
    "difficulty": "EASY",
    "date": "2020-01-02T00:00:00",
    "solutions": [ADD_PROGRAM, "print(3)"],
}
PRIMEINTELLECT_ROW = {
    "problem_id": "vfc_1",
    "task_type": "verifiable_code",
    "prompt": (
        "Solve the following coding problem using the programming language python:\n\nAdd two "
        "numbers."
    ),
    "gold_standard_solution": f"```python\n{ADD_PROGRAM}```",
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
LIVECODEBENCH_ROW = {
    "question_title": "Add",
    "question_content": "Add two numbers.",
    "platform": "atcoder",
    "question_id": "abc301_a",
    "contest_id": "abc301",
    "contest_date": "2023-05-13T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]),
    "private_test_cases": pack_tests(PRIVATE_TESTS),
    "metadata": "{}",
}
LIVECODEBENCH_CALL_ROW = {
    **LIVECODEBENCH_ROW,
    "question_id": "2727",
    "platform": "leetcode",
    "starter_code": "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        ",
    "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
    "private_test_cases": json.dumps([{"input": "3\n4", "output": "7", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "add_two"}),
}
CODEFORCES_ROW = {
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
APPS_ROW = {
    "problem_id": 0,
    "question": "Add two numbers.",
    "solutions": json.dumps([ADD_PROGRAM]),
    "input_output": json.dumps(STDIN_TESTS),
    "difficulty": "introductory",
    "url": "",
    "starter_code": "",
}
CODE_CONTESTS_ROW = {
    "name": "1_A. Add",
    "description": "Add two numbers.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
    "generated_tests": {"input": ["5 6\n"], "output": ["11\n"]},
    "difficulty": 1,
    "solutions": {
        "language": [1, 2, 3],
        "solution": ["print input()", "int main() {}", ADD_PROGRAM],
    },
    "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
    "input_file": "",
    "output_file": "",
}
LEETCODE_ROW = {
    "task_id": "add",
    "question_id": 1,
    "difficulty": "Easy",
    "problem_description": "Add two numbers.",
    "starter_code": "class Solution:\n    def add_two(self, a: int, b: int) -> int:\n        ",
    "estimated_date": "2015-08-07",
    "prompt": "from typing import *\n",
    "completion": ADD_METHOD,
    "entry_point": "Solution().add_two",
    "test": (
        "def check(candidate):\n    assert candidate(a = 1, b = 2) == 3\n    assert candidate(a = "
        "3, b = 4) == 7\n"
    ),
}
LEETCODE_NODES_ROW = {
    **LEETCODE_ROW,
    "task_id": "add-nodes",
    "starter_code": (
        "class Solution:\n    def add_two(self, head: Optional[ListNode]) -> Optional[TreeNode]:\n"
        "        "
    ),
    "completion": (
        "class Solution:\n    def add_two(self, head: Optional[ListNode]) -> Optional[TreeNode]:\n"
        "        a, b = head.val, head.next.val\n"
        "        return TreeNode(a + b, None, TreeNode(b))\n"
    ),
    "test": (
        "def check(candidate):\n    assert is_same_tree(candidate(head = list_node([1, 2])), "
        "tree_node([3, None, 2]))\n    assert is_same_tree(candidate(head = list_node([3, 4])), "
        "tree_node([7, None, 4]))\n"
    ),
}
KODCODE_ROW = {
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
MBPP_ROW = {
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
RLLM_LEETCODE_ROW = {
    "problem": (
        "Please solve the programming task below using a self-contained code snippet in a markdown "
        "code block.\n\nAdd two numbers.\n\nPlease complete the following python code "
        "precisely:\n```python\nclass Solution:\n    def add_two(self, a: int, b: int) -> "
        "int:\n```"
    ),
    "solutions": ADD_METHOD,
    "tests": {"functional": f"{LEETCODE_ROW['test']}\n\ncheck(Solution().add_two)"},
}
QUICKSTART_ROW = {
    "name": "add",
    "split": "train",
    "difficulty": "easy",
    "prompt": "Add two numbers.",
    "entry_point": "add_two",
    "reference": "def add_two(a, b):\n    return a + b",
    "tests": [{"args": [1, 2], "expected": 3}, {"args": [3, 4], "expected": 7}],
}

# Data source, row, expected id, number of tests, number of solutions, and a right solution if the
# row has none. Rows in the hub's formats:
GENERATED_ROW = {
    "id": "1",
    "question": "Add two numbers.",
    "tests": STDIN_TESTS,
    "solutions": [ADD_PROGRAM],
    "difficulty": "",
    "generation": {"mutants": 2, "killed": 2},
    "skip_reason": None,
}
HUB_EXAMPLES = [
    ("taco", TACO_ROW, "taco/7", 2, 2, None),
    ("primeintellect", PRIMEINTELLECT_ROW, "primeintellect/vfc_1", 2, 1, None),
    ("livecodebench", LIVECODEBENCH_ROW, "livecodebench/abc301_a", 2, 0, ADD_PROGRAM),
    ("livecodebench", LIVECODEBENCH_CALL_ROW, "livecodebench/2727", 2, 0, ADD_METHOD),
    ("codeforces", CODEFORCES_ROW, "codeforces/1/A", 2, 0, ADD_PROGRAM),
    ("apps", APPS_ROW, "apps/0", 2, 1, None),
    ("code_contests", CODE_CONTESTS_ROW, "code_contests/1_A. Add", 3, 1, None),
    ("leetcode", LEETCODE_ROW, "leetcode/add", 2, 1, None),
    ("leetcode", LEETCODE_NODES_ROW, "leetcode/add-nodes", 2, 1, None),
    ("kodcode", KODCODE_ROW, "kodcode/Prefill_1_I", 2, 1, None),
    ("mbpp", MBPP_ROW, "mbpp/601", 3, 1, None),
    ("quickstart", QUICKSTART_ROW, "quickstart/add", 2, 1, None),
    # Those that verl_pipeline.recipes.deepcoder.generate writes.
    ("codeio", GENERATED_ROW, "codeio/1", 2, 1, None),
    ("families", GENERATED_ROW, "families/1", 2, 1, None),
    ("model_made", GENERATED_ROW, "model_made/1", 2, 1, None),
    ("strengthened", GENERATED_ROW, "strengthened/1", 2, 1, None),
]
# Rows in rLLM's formats:
RLLM_EXAMPLES = [
    ("taco", {"problem": "Add.", "tests": STDIN_TESTS}, "taco/rows.jsonl:1", 2, 0, ADD_PROGRAM),
    (
        "code_contests",
        {"problem": "Add.", "tests": json.dumps(STDIN_TESTS)},
        "code_contests/rows.jsonl:1",
        2,
        0,
        ADD_PROGRAM,
    ),
    ("leetcode", RLLM_LEETCODE_ROW, "leetcode/rows.jsonl:1", 2, 1, None),
    (
        "codeforces",
        {"problem": "Add.", "tests": CODEFORCES_ROW["official_tests"]},
        "codeforces/rows.jsonl:1",
        2,
        0,
        ADD_PROGRAM,
    ),
    (
        "primeintellect",
        {
            "problem": "Add.",
            "tests": json.loads(PRIMEINTELLECT_ROW["verification_info"])["test_cases"],
            "solutions": [ADD_PROGRAM],
        },
        "primeintellect/rows.jsonl:1",
        2,
        1,
        None,
    ),
]


def write_jsonl(folder: Path, *rows: object) -> Path:
    """Write ``rows.jsonl`` below ``folder``, and return its path."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ingest_file(source: str, path: Path, **settings) -> list[ProblemRecord | RemovedRow]:
    """Ingest one file of a data source, with the given settings of the source."""
    return list(ingest_rows(source, SourceConfig(**settings), [path], lambda: None))
