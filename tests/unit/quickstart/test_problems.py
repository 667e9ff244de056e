"""The quickstart's problems: correct references, strict tests, disjoint splits, verl's rows."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.helpers.thinned import thin_out
from verl_pipeline.grading import grade
from verl_pipeline.grading.readers import READERS
from verl_pipeline.quickstart.problems import (
    TESTS_SOURCE,
    QuickstartProblem,
    QuickstartTest,
    load_problems,
    write_parquet,
)
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(120)
PROBLEMS = load_problems()
TRAIN = [problem for problem in PROBLEMS if problem.split == "train"]
HELDOUT = [problem for problem in PROBLEMS if problem.split == "heldout"]


@pytest.fixture(scope="module")
def get_verdict():
    with Sandbox(1) as sandbox:
        yield (
            lambda problem, code: (
                grade(
                    READERS[TESTS_SOURCE](problem.make_ground_truth(), name=problem.name),
                    code,
                    sandbox,
                ).verdict
            )
        )


def count_arguments(problem: QuickstartProblem) -> int:
    return len(problem.tests[0].args)


def test_split_sizes_and_difficulties():
    assert len(TRAIN) >= 200
    assert 35 <= len(HELDOUT) <= 50
    for problems in (TRAIN, HELDOUT):
        counts = Counter(problem.difficulty for problem in problems)
        assert counts.keys() == {"easy", "medium", "hard"}
        assert counts["easy"] > counts["hard"]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_names_prompts_and_tests_are_well_formed(problem):
    assert problem.entry_point == problem.name
    assert f"`{problem.name}(" in problem.prompt and problem.prompt.endswith(
        "in a ```python code block."
    )
    assert 6 <= len(problem.tests) <= 8
    assert {len(case.args) for case in problem.tests} == {count_arguments(problem)}
    assert len({json.dumps(case.args) for case in problem.tests}) == len(problem.tests)
    read = READERS[TESTS_SOURCE](problem.make_ground_truth(), name=problem.name)
    assert read.entry_point == problem.name
    assert [json.dumps([test.args, test.output]) for test in read.tests] == [
        json.dumps([case.args, case.expected]) for case in problem.tests
    ]


@pytest.mark.parametrize("problem", thin_out(PROBLEMS, 60), ids=lambda problem: problem.name)
def test_the_reference_is_accepted(problem, get_verdict):
    assert get_verdict(problem, problem.reference) == "accepted"


@pytest.mark.parametrize("problem", thin_out(PROBLEMS, 60), ids=lambda problem: problem.name)
def test_trivial_functions_are_rejected(problem, get_verdict):
    # As JSON text, True differs from 1 and 1 from 1.0; no constant equals two different texts.
    assert len({json.dumps(case.expected) for case in problem.tests}) >= 2
    for position in range(count_arguments(problem)):
        code = f"def {problem.name}(*arguments):\n    return arguments[{position}]"
        assert get_verdict(problem, code) == "wrong_answer"


def test_splits_share_no_name_and_no_prompt():
    assert len({problem.name for problem in PROBLEMS}) == len(PROBLEMS)
    assert len({problem.prompt for problem in PROBLEMS}) == len(PROBLEMS)


def test_splits_share_no_behaviour():
    functions = {problem.name: load_reference(problem) for problem in PROBLEMS}
    same = [
        (train.name, heldout.name)
        for train, heldout in product(TRAIN, HELDOUT)
        if count_arguments(train) == count_arguments(heldout)
        and passes_tests(functions[train.name], heldout.tests)
        and passes_tests(functions[heldout.name], train.tests)
    ]
    assert same == []


def test_equal_behaviour_is_detected():
    first, second = (
        next(p for p in PROBLEMS if p.name == name) for name in ("first_element", "first_character")
    )
    assert passes_tests(load_reference(first), second.tests) and passes_tests(
        load_reference(second), first.tests
    )


def load_reference(problem: QuickstartProblem) -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(problem.reference, namespace)
    return namespace[problem.entry_point]


def passes_tests(function: Callable[..., Any], tests: tuple[QuickstartTest, ...]) -> bool:
    """Whether a function passes the tests; for another problem's it may raise or never end."""
    for case in tests:
        try:
            result = call_with_line_limit(function, json.loads(json.dumps(case.args)))
        except Exception:
            return False
        if json.dumps(result, default=repr, sort_keys=True) != json.dumps(
            case.expected, sort_keys=True
        ):
            return False
    return True


def call_with_line_limit(
    function: Callable[..., Any], arguments: list[Any], lines: int = 20_000
) -> Any:
    left = lines

    def count(frame, event, argument):
        nonlocal left
        left -= 1
        if left < 0:
            raise TimeoutError
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return function(*arguments)
    finally:
        sys.settrace(before)


def test_parquet_rows_have_verls_schema(tmp_path):
    paths = write_parquet(tmp_path / "new")
    assert {split: path.name for split, path in paths.items()} == {
        "train": "train.parquet",
        "heldout": "heldout.parquet",
    }
    for split, problems in (("train", TRAIN), ("heldout", HELDOUT)):
        table = pyarrow.parquet.read_table(paths[split])
        message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
        assert table.schema.field("prompt").type == pyarrow.list_(message)
        rows = table.to_pylist()
        assert len(rows) == len(problems)
        for index, (row, problem) in enumerate(zip(rows, problems, strict=True)):
            truth = row["reward_model"].pop("ground_truth")
            assert row == {
                "data_source": "verl_pipeline_quickstart",
                "prompt": [
                    {"role": "system", "content": ""},
                    {"role": "user", "content": problem.prompt},
                ],
                "ability": "code",
                "reward_model": {"style": "rule"},
                "extra_info": {
                    "index": index,
                    "name": problem.name,
                    "difficulty": problem.difficulty,
                },
            }
            assert truth == problem.make_ground_truth()
            assert problem.reference not in truth


def test_parquet_files_of_a_selection(tmp_path):
    paths = write_parquet(tmp_path, [TRAIN[0], HELDOUT[0], TRAIN[1]])
    assert [
        pyarrow.parquet.read_table(paths[split]).num_rows for split in ("train", "heldout")
    ] == [2, 1]
    with pytest.raises(ValueError, match="heldout"):
        write_parquet(tmp_path, TRAIN[:1])
