"""Codeforces problems of 2024, CodeElo's selection (Quan et al. 2025), with an optional rating.

CodeElo submits programs to Codeforces, whose tests are not public. Its data set has only the
examples of the statements, so a score on them is an upper bound, and every result says so. The
examples do not count as public tests (``Problem.public``) although the prompt shows them: they are
also the hidden tests, so a vote that used them would know the verdicts.
"""

import collections

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.data import DataFinder, HubFiles, Row
from verl_pipeline.evaluation.rating import estimate_rating
from verl_pipeline.evaluation.task import (
    PublishedResult,
    SamplingParameters,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)
from verl_pipeline.evaluation.tasks._prompts import (
    ANSWER_FORMAT,
    CODE_PREFILL,
    EXPERT_INSTRUCTION,
    STDIN_FORMAT,
)
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import read_codeforces
from verl_pipeline.grading.readers.row_values import is_blank, parse_list

_BLOG = "DeepCoder blog post, April 2025"
_SAMPLES = "sample tests only, like ours: 378 of 408 problems have a single one"
_REAL = "submitted to Codeforces"


def load_problems(finder: DataFinder) -> TaskData:
    """Load all problems from CodeElo's rows, or rLLM's (``problem``, ``tests``)."""
    rows, origin = finder.find_rows(
        ["codeforces", "codeelo"], hub=HubFiles("Qwen/CodeElo", ("data/*.parquet",))
    )
    data = read_items(rows, origin, _make_item)
    counts = collections.Counter(len(item.problem.tests) for item in data.items if item.problem)
    tests = ", ".join(
        f"{problems} problems with {number}" for number, problems in sorted(counts.items())
    )
    data.caveats.append(
        Caveat(
            "upper_bound",
            f"SAMPLE TESTS ONLY, the examples of the statements ({tests}): the score is an upper "
            "bound and not comparable with submissions to Codeforces; of several correct answers "
            "only the example's is accepted",
        )
    )
    return data


def _make_item(number: int, row: Row) -> TaskItem:
    name = str(row.get("problem_id") or f"row-{number}")
    statement = row.get("problem") or _format_statement(row)
    tests = row["tests"] if not is_blank(row.get("tests")) else _read_examples(row)
    rating = row.get("rating")
    tags = (
        {"rating": f"{int(rating) // 400 * 400}-{int(rating) // 400 * 400 + 399}"} if rating else {}
    )
    return TaskItem(
        id=name,
        messages=make_conversation(
            f"{EXPERT_INSTRUCTION}### Question:\n{statement}\n\n{STDIN_FORMAT}{ANSWER_FORMAT}"
        ),
        problem=read_codeforces(tests, name=name),
        prefill=CODE_PREFILL,
        tags={**tags, "tag": _parse_tags(row)[0]} if _parse_tags(row) else tags,
    )


def _format_statement(row: Row) -> str:
    parts = [
        row["title"],
        row["description"],
        f"Input Format:\n{row['input']}",
        f"Output Format:\n{row['output']}",
    ]
    parts += [f"Note:\n{row['note']}"] if row.get("note") else []
    examples = [
        f"Example input:\n{test_input}\nExample output:\n{output}"
        for test_input, output in map(dict.values, _read_examples(row))
    ]
    return "\n\n".join([*parts, *examples])


def _read_examples(row: Row) -> list[dict[str, str]]:
    """Return CodeElo's examples, pairs of input and output, as test cases."""
    pairs = [
        parse_list(pair, "an example as a pair")
        for pair in parse_list(row["examples"], "examples as a list of pairs")
    ]
    return [{"input": test_input, "output": output} for test_input, output in pairs]


def _parse_tags(row: Row) -> list[str]:
    return [] if is_blank(row.get("tags")) else parse_list(row["tags"], "tags as a list")


TASK = Task(
    name="codeforces",
    title="Codeforces (CodeElo), sample tests",
    load=load_problems,
    sampling=SamplingParameters(n=8, max_tokens=32768),
    rate=estimate_rating,
    published=(
        PublishedResult("DeepCoder-14B-Preview", 1936, "rating", _BLOG, f"{_SAMPLES}; 8 samples"),
        PublishedResult(
            "DeepSeek-R1-Distill-Qwen-14B", 1791, "rating", _BLOG, f"{_SAMPLES}; 8 samples"
        ),
        PublishedResult(
            "DeepSeek-R1-Distill-Qwen-14B",
            1481,
            "rating",
            "README of DeepSeek-R1",
            "another set of contests",
        ),
        PublishedResult("o3-mini-2025-1-31 (low)", 1918, "rating", _BLOG, _SAMPLES),
        PublishedResult("DeepCoder-1.5B-Preview", 963, "rating", _BLOG, f"{_SAMPLES}; 8 samples"),
        PublishedResult("o1-mini", 1578, "rating", "CodeElo, table 1", _REAL),
    ),
)
