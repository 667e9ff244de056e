"""Codeforces problems of 2024 as CodeElo chose them (Quan et al. 2025), with a rating where the
standings are at hand.

CodeElo submits to Codeforces, whose tests are not public. What its data set holds are the
statements' examples: a score on them is an upper bound, and every result says so. They do not count
as shown (``Problem.public``), though CodeElo's are: a vote that knew them would know the grade.
"""

import ast
import collections

from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.rating import rate
from verl_pipeline.evaluation.task import Item, Loaded, Published, Sampling, Task, asked
from verl_pipeline.evaluation.tasks._reading import (
    CODE_PREFILL,
    EXPERT,
    FROM_STDIN,
    USE_BACKTICKS,
    read_all,
)
from verl_pipeline.grading.readers import read_codeforces

_BLOG = "DeepCoder blog post, April 2025"
_SAMPLES = "sample tests only, like ours: 378 of 408 problems have a single one"
_REAL = "submitted to Codeforces"


def load(finder: Finder) -> Loaded:
    """All problems; rows of CodeElo, or rLLM's (``problem``, ``tests``)."""
    rows, origin = finder.find(
        ["codeforces", "codeelo"], hub=Hub("Qwen/CodeElo", ("data/*.parquet",))
    )
    loaded = read_all(rows, origin, _item)
    counts = collections.Counter(len(item.problem.tests) for item in loaded.items if item.problem)
    tests = ", ".join(
        f"{problems} problems with {number}" for number, problems in sorted(counts.items())
    )
    loaded.notes.append(
        f"SAMPLE TESTS ONLY, the examples of the statement ({tests}): an upper bound, not "
        "comparable with results of submissions to Codeforces; problems with several right "
        "answers accept the example's alone"
    )
    return loaded


def _item(number: int, row: Row) -> Item:
    name = str(row.get("problem_id") or f"row-{number}")
    statement = row.get("problem") or _statement(row)
    tests = row.get("tests") or [
        {"input": given, "output": wanted} for given, wanted in row["examples"]
    ]
    rating = row.get("rating")
    tags = (
        {"rating": f"{int(rating) // 400 * 400}-{int(rating) // 400 * 400 + 399}"} if rating else {}
    )
    return Item(
        id=name,
        messages=asked(f"{EXPERT}### Question:\n{statement}\n\n{FROM_STDIN}{USE_BACKTICKS}"),
        problem=read_codeforces(tests, name=name),
        prefill=CODE_PREFILL,
        tags={**tags, "tag": _tags(row)[0]} if _tags(row) else tags,
    )


def _statement(row: Row) -> str:
    parts = [
        row["title"],
        row["description"],
        f"Input Format:\n{row['input']}",
        f"Output Format:\n{row['output']}",
    ]
    parts += [f"Note:\n{row['note']}"] if row.get("note") else []
    examples = [
        f"Example input:\n{given}\nExample output:\n{wanted}" for given, wanted in row["examples"]
    ]
    return "\n\n".join([*parts, *examples])


def _tags(row: Row) -> list[str]:
    tags = row.get("tags") or []
    return list(ast.literal_eval(tags)) if isinstance(tags, str) else list(tags)


TASK = Task(
    name="codeforces",
    title="Codeforces (CodeElo), sample tests",
    load=load,
    sampling=Sampling(n=8, max_tokens=32768),
    rate=rate,
    published=(
        Published("DeepCoder-14B-Preview", 1936, "rating", _BLOG, f"{_SAMPLES}; 8 samples"),
        Published("DeepSeek-R1-Distill-Qwen-14B", 1791, "rating", _BLOG, f"{_SAMPLES}; 8 samples"),
        Published(
            "DeepSeek-R1-Distill-Qwen-14B",
            1481,
            "rating",
            "README of DeepSeek-R1",
            "another set of contests",
        ),
        Published("o3-mini-2025-1-31 (low)", 1918, "rating", _BLOG, _SAMPLES),
        Published("DeepCoder-1.5B-Preview", 963, "rating", _BLOG, f"{_SAMPLES}; 8 samples"),
        Published("o1-mini", 1578, "rating", "CodeElo, table 1", _REAL),
    ),
)
