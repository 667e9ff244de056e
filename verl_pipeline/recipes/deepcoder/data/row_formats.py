"""Reads a row of a data source into the fields of a problem, one function per row format.

The formats are those of the data sets on the hub, as their cards describe them (checked November
2026). :mod:`.rllm_formats` reads the copies that rLLM published.

Invariants:
* A row is translated, never interpreted: no test is selected, dropped or changed, and no solution
  is repaired.
* Solutions are Python 3 programs, as far as the source names their language.
"""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.evaluation.data import Row
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.case_values import read_cases
from verl_pipeline.grading.readers.livecodebench_reader import read_function, read_row_cases
from verl_pipeline.grading.readers.pair_readers import read_groups
from verl_pipeline.grading.readers.row_values import (
    is_missing,
    parse_container,
    parse_list,
    parse_object,
    read_text,
)
from verl_pipeline.quickstart.problems import QuickstartProblem, QuickstartTest

# deepmind/code_contests, `solutions.language`: 0 unknown, 1 Python 2, 2 C++, 3 Python 3, 4 Java.
_PYTHON3 = (3, "PYTHON3")
# deepmind/code_contests, `difficulty`.
_CODE_CONTESTS_LEVELS = {
    0: "",
    1: "easy",
    2: "medium",
    3: "hard",
    4: "harder",
    5: "hardest",
    6: "external",
}


@dataclass(frozen=True)
class RawProblem:
    """What a row says, in the fields of a problem record.

    Attributes:
        question: the problem statement.
        tests: tests in the format that the source's reader reads; anything but text becomes JSON.
        id: id within the source; None: the row has none.
        solutions: official solutions, as programs.
        starter: code that every solution starts with.
        language: programming language, if the row names one.
        date: ISO date of the contest, if known.
        difficulty: in the words of the source.
        multi_answer: the source says that several answers are right.
        skip_reason: why the row is not a coding problem that can be used; None: it is one.
        prompt: the source's own conversation, if it has one.
    """

    question: str
    tests: Any
    id: str | None = None
    solutions: Sequence[str] = ()
    starter: str = ""
    language: str | None = None
    date: str | None = None
    difficulty: str = ""
    multi_answer: bool = False
    skip_reason: str | None = None
    prompt: tuple[dict[str, str], ...] = ()


def list_programs(value: Any) -> list[str]:
    """Return the programs of a list, of text of a list, or of a single program; None is empty."""
    if is_missing(value):
        return []
    if isinstance(value, str):
        try:
            value = parse_list(value, "a list of programs")
        except BadRow:  # the text is a program
            return [value] if value.strip() else []
    return [read_text(one, "a solution") for one in parse_list(value, "a list of programs")]


def read_taco(row: Row) -> RawProblem:
    """Read a row of likaixin/TACO-verified or codeparrot/apps."""
    identity = row.get("problem_id", row.get("id"))
    return RawProblem(
        id=None if identity is None else str(identity),
        question=row["question"],
        tests=row["input_output"],
        solutions=list_programs(row["solutions"]),
        starter=row.get("starter_code") or "",
        date=str(row["date"])[:10] if row.get("date") else None,
        difficulty=str(row.get("difficulty") or ""),
    )


def read_primeintellect(row: Row) -> RawProblem:
    """Read a row of PrimeIntellect/verifiable-coding-problems, or of all of SYNTHETIC-1."""
    identity = str(row["problem_id"]) if row.get("problem_id") else None
    task = row.get("task_type")
    if task not in (None, "verifiable_code"):
        reason = f"task_type {task}: not a coding problem"
        return RawProblem(question="", tests="", id=identity, skip_reason=reason)
    info = parse_object(row["verification_info"], "verification_info as an object")
    gold = row["gold_standard_solution"]
    program = extract_last_program(gold) if gold else None
    return RawProblem(
        id=identity,
        question=row["prompt"],
        tests=info["test_cases"],
        solutions=[program] if program else [],
        language=info.get("language"),
    )


def read_livecodebench(row: Row) -> RawProblem:
    """Read a row of LiveCodeBench.

    The tests become what rLLM stores: one list of public and private tests, the private ones
    unpacked, with the function's name in each test.
    """
    public, private = read_row_cases(row)
    function = read_function(row)
    metadata = {"metadata": {"func_name": function}} if function else {}
    try:
        day = datetime.datetime.fromisoformat(str(row["contest_date"])).date().isoformat()
    except ValueError as error:
        raise BadRow(f"contest_date: {error}") from error
    return RawProblem(
        id=str(row["question_id"]),
        question=row["question_content"],
        tests=[
            {"input": case.input, "output": case.output, "testtype": case.kind, **metadata}
            for case in [*public, *private]
        ],
        starter=row.get("starter_code") or "",
        date=day,
        difficulty=str(row.get("difficulty") or ""),
    )


def read_codeforces(row: Row) -> RawProblem:
    """Read a row of open-r1/codeforces.

    The grader does not run its checkers, so a problem with one counts as having several answers.
    """
    skip_reason = None
    if row.get("interaction_format"):
        skip_reason = "interactive"
    elif row.get("official_tests_complete") is False:
        skip_reason = "official tests cut by the source"
    elif row.get("input_mode") not in (None, "stdio"):
        skip_reason = f"input_mode {row['input_mode']}: reads a file"
    parts = [row["description"]]
    parts += [f"Input\n\n{row['input_format']}"] if row.get("input_format") else []
    parts += [f"Output\n\n{row['output_format']}"] if row.get("output_format") else []
    for example in read_cases(row.get("examples") or []):
        parts.append(f"Example\n\nInput\n\n{example.input}\n\nOutput\n\n{example.output}")
    parts += [f"Note\n\n{row['note']}"] if row.get("note") else []
    start = row.get("contest_start")  # seconds since 1970
    return RawProblem(
        id=str(row["id"]),
        question="\n\n".join(map(str, parts)),
        tests=[]
        if skip_reason
        else [
            {"input": case.input, "output": case.output}
            for case in read_cases(row["official_tests"])
        ],
        date=(
            datetime.datetime.fromtimestamp(int(start), datetime.UTC).date().isoformat()
            if start
            else None
        ),
        difficulty=str(row.get("rating") or ""),
        multi_answer=bool(row.get("generated_checker")),
        skip_reason=skip_reason,
    )


def read_code_contests(row: Row) -> RawProblem:
    """Read a row of deepmind/code_contests, with its public, private and generated tests."""
    cases = read_groups(row)
    tests = {
        "inputs": [case.input for case in cases],
        "outputs": [case.output for case in cases],
    }
    reads_file = row.get("input_file") or row.get("output_file")
    return RawProblem(
        id=str(row["name"]),
        question=row["description"],
        tests=tests,
        solutions=_list_python_programs(row["solutions"]),
        difficulty=_CODE_CONTESTS_LEVELS.get(row.get("difficulty") or 0, ""),
        skip_reason="reads or writes a file" if reads_file else None,
    )


def _list_python_programs(value: Any) -> list[str]:
    """Return the Python 3 programs of a list of objects, or of an object of lists."""
    if is_missing(value):
        return []
    solutions = parse_container(value, "solutions with language and solution")
    if isinstance(solutions, dict):
        languages = parse_list(solutions["language"], "language as a list")
        programs = parse_list(solutions["solution"], "solution as a list")
        pairs = list(zip(languages, programs, strict=True))
    else:
        pairs = [(one["language"], one["solution"]) for one in solutions]
    return [read_text(program, "a solution") for language, program in pairs if language in _PYTHON3]


def read_leetcode(row: Row) -> RawProblem:
    """Read a row of newfacade/LeetCodeDataset.

    ``test`` defines ``check(candidate)``, to be called with ``entry_point``; ``prompt`` (imports
    and helpers) is not used: the grader has the same.
    """
    return RawProblem(
        id=str(row["task_id"]),
        question=row.get("problem_description") or row["query"],
        tests={"functional": f"{row['test'].rstrip()}\n\n\ncheck({row['entry_point']})\n"},
        solutions=list_programs(row["completion"]),
        starter=row.get("starter_code") or "",
        date=str(row["estimated_date"])[:10] if row.get("estimated_date") else None,
        difficulty=str(row.get("difficulty") or ""),
    )


def read_kodcode(row: Row) -> RawProblem:
    """Read a row of KodCode V1 or V1.1, in any of its styles.

    In the style ``complete``, where a solution continues given code, the question shows that code.
    """
    identity = row.get("question_id") or row.get("conversation_id")
    return RawProblem(
        id=str(identity) if identity else None,
        question=row["question"],
        tests=row["test"] if "test" in row else row["test_code"],
        solutions=list_programs(row["solution"]),
        difficulty=str(row.get("gpt_difficulty") or ""),
    )


def read_mbpp(row: Row) -> RawProblem:
    """Read a row of MBPP, full or sanitized."""
    test_keys = (
        "task_id",
        "test_list",
        "challenge_test_list",
        "test_setup_code",
        "test_imports",
        "code",
    )
    return RawProblem(
        id=str(row["task_id"]),
        question=str(row.get("prompt") or row["text"]).strip(),
        tests={key: row[key] for key in test_keys if key in row},
        solutions=list_programs(row["code"]),
    )


def read_quickstart(row: Row) -> RawProblem:
    """Read a row of the problems that verl_pipeline ships."""
    problem = QuickstartProblem(
        **{**row, "tests": tuple(QuickstartTest(**test) for test in row["tests"])}
    )
    return RawProblem(
        id=problem.name,
        question=problem.prompt,
        tests=json.loads(problem.make_ground_truth()),
        solutions=[problem.reference],
        difficulty=problem.difficulty,
        # Without a system message, SmolLM2's chat template adds its own, which costs 16 tokens per
        # sample; an empty one prevents that.
        prompt=({"role": "system", "content": ""}, {"role": "user", "content": problem.prompt}),
    )


def read_generated(row: Row) -> RawProblem:
    """Read a row that the room ``generation`` wrote; a rejected one says why."""
    return RawProblem(
        id=str(row["id"]),
        question=row["question"],
        tests=row["tests"],
        solutions=list_programs(row["solutions"]),
        difficulty=str(row.get("difficulty") or ""),
        skip_reason=row.get("skip_reason"),
    )
