"""What of a row is what, in each shape that a source's rows come in.

Shapes are those of the hub, as their cards describe them (checked November 2026), and rLLM's
(``problem``, ``tests``).

Invariants:
* A row is translated, never interpreted: no test is chosen, dropped or changed, no solution is
  repaired.
* Programs are official solutions for Python 3 as far as the source names their language.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.evaluation.data import Row
from verl_pipeline.grading.extract import last_program
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.livecodebench import decode_private
from verl_pipeline.grading.readers.pairs import from_json
from verl_pipeline.quickstart.problems import Case, Problem

# deepmind/code_contests, `solutions.language`: 0 unknown, 1 Python 2, 2 C++, 3 Python 3, 4 Java.
_PYTHON3 = 3
# The same card, `difficulty`.
_CODE_CONTESTS_LEVELS = {
    0: "",
    1: "easy",
    2: "medium",
    3: "hard",
    4: "harder",
    5: "hardest",
    6: "external",
}
_RLLM_LEETCODE = re.compile(
    r"^(?:Please solve the programming task below[^\n]*\n+)?(?P<question>.*?)\n+"
    r"Please complete the following python code precisely:\n```python\n(?P<starter>.*?)\n?```\s*$",
    re.DOTALL,
)


@dataclass(frozen=True)
class Raw:
    """What a row says, in the words of :class:`recipes.deepcoder.data.problem_records.Record`.

    Attributes:
        id: within the source; None: the row has none.
        tests: what the source's reader takes; anything but text becomes JSON.
        skip: why the row is not one of the source's coding problems, or None.
        prompt: the source's own conversation.
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
    skip: str | None = None
    prompt: tuple[dict[str, str], ...] = ()


def _texts(value: Any) -> list[str]:
    """Programs, as a list, as JSON text of one, or as a single text; None: none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = from_json(value)
    return [value] if isinstance(value, str) and value.strip() else list(value or [])


def taco(row: Row) -> Raw:
    identity = row.get("problem_id", row.get("id"))
    return Raw(
        id=None if identity is None else str(identity),
        question=row["question"],
        tests=from_json(row["input_output"]),
        solutions=_texts(row["solutions"]),
        starter=row.get("starter_code") or "",
        date=str(row["date"])[:10] if row.get("date") else None,
        difficulty=str(row.get("difficulty") or ""),
    )


def rllm(row: Row) -> Raw:
    return Raw(
        question=row["problem"],
        tests=row["tests"],
        solutions=_texts(row.get("solutions")),
        starter=row.get("starter_code") or "",
        difficulty=str(row.get("difficulty") or ""),
    )


def primeintellect(row: Row) -> Raw:
    """``verification_info`` and ``gold_standard_solution`` of verifiable-coding-problems, or of all
    of SYNTHETIC-1.
    """
    identity = str(row["problem_id"]) if row.get("problem_id") else None
    task = row.get("task_type")
    if task not in (None, "verifiable_code"):
        return Raw(question="", tests="", id=identity, skip=f"task_type {task}: no coding problem")
    info = from_json(row["verification_info"])
    if not isinstance(info, Mapping):
        raise BadRow(f"verification_info: an object is expected, not {type(info).__name__}")
    gold = row["gold_standard_solution"]
    program = last_program(gold) if gold else None
    return Raw(
        id=identity,
        question=row["prompt"],
        tests=info["test_cases"],
        solutions=[program] if program else [],
        language=info.get("language"),
    )


def rllm_primeintellect(row: Row) -> Raw:
    raw = rllm(row)
    programs = [last_program(text) or text for text in raw.solutions]
    return Raw(
        question=raw.question, tests=raw.tests, solutions=programs, language=row.get("language")
    )


def livecodebench(row: Row) -> Raw:
    """Tests as rLLM keeps them: a list with the function's name in each, private ones unpacked."""
    metadata = from_json(row.get("metadata") or "{}")
    cases = [
        *from_json(row["public_test_cases"]),
        *decode_private(row["private_test_cases"] or "[]"),
    ]
    function = (
        {"metadata": {"func_name": metadata["func_name"]}} if metadata.get("func_name") else {}
    )
    try:
        day = datetime.datetime.fromisoformat(str(row["contest_date"])).date().isoformat()
    except ValueError as error:
        raise BadRow(f"contest_date: {error}") from error
    return Raw(
        id=str(row["question_id"]),
        question=row["question_content"],
        tests=[
            {**{key: case[key] for key in ("input", "output", "testtype")}, **function}
            for case in cases
        ],
        starter=row.get("starter_code") or "",
        date=day,
        difficulty=str(row.get("difficulty") or ""),
    )


def codeforces(row: Row) -> Raw:
    """open-r1/codeforces; its checkers are not graded with, so such a problem counts as one of
    several answers.
    """
    skip = None
    if row.get("interaction_format"):
        skip = "interactive"
    elif row.get("official_tests_complete") is False:
        skip = "official tests cut by the source"
    elif row.get("input_mode") not in (None, "stdio"):
        skip = f"input_mode {row['input_mode']}: reads a file"
    parts = [row["description"]]
    parts += [f"Input\n\n{row['input_format']}"] if row.get("input_format") else []
    parts += [f"Output\n\n{row['output_format']}"] if row.get("output_format") else []
    for example in row.get("examples") or []:
        parts.append(f"Example\n\nInput\n\n{example['input']}\n\nOutput\n\n{example['output']}")
    parts += [f"Note\n\n{row['note']}"] if row.get("note") else []
    year = row.get("contest_start")
    return Raw(
        id=str(row["id"]),
        question="\n\n".join(map(str, parts)),
        tests=[
            {"input": test["input"], "output": test["output"]}
            for test in row["official_tests"] or []
        ],
        date=datetime.datetime.fromtimestamp(int(year), datetime.UTC).date().isoformat()
        if year
        else None,
        difficulty=str(row.get("rating") or ""),
        multi_answer=bool(row.get("generated_checker")),
        skip=skip,
    )


def code_contests(row: Row) -> Raw:
    groups = [row[name] or {} for name in ("public_tests", "private_tests", "generated_tests")]
    tests = {
        "inputs": [text for group in groups for text in group.get("input") or []],
        "outputs": [text for group in groups for text in group.get("output") or []],
    }
    solved = row["solutions"] or {}
    languages, programs = solved.get("language") or [], solved.get("solution") or []
    reads_file = row.get("input_file") or row.get("output_file")
    return Raw(
        id=str(row["name"]),
        question=row["description"],
        tests=tests,
        solutions=[
            text for text, code in zip(programs, languages, strict=True) if code == _PYTHON3
        ],
        difficulty=_CODE_CONTESTS_LEVELS.get(row.get("difficulty") or 0, ""),
        skip="reads or writes a file" if reads_file else None,
    )


def leetcode(row: Row) -> Raw:
    """newfacade/LeetCodeDataset: ``prompt`` holds imports and helpers, ``test`` calls what
    ``entry_point`` says.
    """
    if lists := sorted({name for name in ("list_node", "tree_node") if f"{name}(" in row["test"]}):
        why = f"tests build nodes: with {', '.join(lists)}, which cannot be handed over"
        return Raw(question="", tests="", id=str(row["task_id"]), skip=why)
    return Raw(
        id=str(row["task_id"]),
        question=row.get("problem_description") or row["query"],
        tests={"functional": f"{row['test'].rstrip()}\n\n\ncheck({row['entry_point']})\n"},
        solutions=_texts(row["completion"]),
        starter=row.get("starter_code") or "",
        date=str(row["estimated_date"])[:10] if row.get("estimated_date") else None,
        difficulty=str(row.get("difficulty") or ""),
    )


def rllm_leetcode(row: Row) -> Raw:
    raw, parts = rllm(row), _RLLM_LEETCODE.match(row["problem"])
    question, starter = (
        (parts["question"], parts["starter"]) if parts else (raw.question, raw.starter)
    )
    return Raw(
        question=question,
        tests=raw.tests,
        solutions=raw.solutions,
        starter=starter,
        difficulty=raw.difficulty,
    )


def kodcode(row: Row) -> Raw:
    """Version 1 and 1.1; the style ``complete`` asks to continue code, whose beginning the question
    shows.
    """
    identity = row.get("question_id") or row.get("conversation_id")
    return Raw(
        id=str(identity) if identity else None,
        question=row["question"],
        tests=row["test"] if "test" in row else row["test_code"],
        solutions=_texts(row["solution"]),
        difficulty=str(row.get("gpt_difficulty") or ""),
    )


def mbpp(row: Row) -> Raw:
    kept = ("task_id", "test_list", "test_setup_code", "test_imports", "code")
    return Raw(
        id=str(row["task_id"]),
        question=str(row.get("prompt") or row["text"]).strip(),
        tests={key: row[key] for key in kept if key in row},
        solutions=_texts(row["code"]),
    )


def quickstart(row: Row) -> Raw:
    problem = Problem(**{**row, "tests": tuple(Case(**test) for test in row["tests"])})
    return Raw(
        id=problem.name,
        question=problem.prompt,
        tests=json.loads(problem.ground_truth()),
        solutions=[problem.reference],
        difficulty=problem.difficulty,
        # The empty system message keeps SmolLM2's chat template from adding its own, 16 tokens a
        # sample.
        prompt=({"role": "system", "content": ""}, {"role": "user", "content": problem.prompt}),
    )
