"""LiveCodeBench code generation (Jain et al. 2024), by release and date of the contest.

The default window is that of DeepCoder's report: release v5, from 2024-08-01 to before 2025-02-01,
279 problems.
"""

import datetime

from verl_pipeline.evaluation.data import DataFinder, HubFiles, Row
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.task import (
    PublishedResult,
    Task,
    TaskData,
    TaskItem,
    make_conversation,
)
from verl_pipeline.evaluation.tasks._prompts import (
    ANSWER_FORMAT,
    CODE_PREFILL,
    EXPERT_INSTRUCTION,
    REASONING_SAMPLING,
    STARTER_FORMAT,
    STDIN_FORMAT,
)
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.grading.readers import BadRow, read_livecodebench

RELEASES = ("v1", "v2", "v3", "v4", "v5", "v6")
_BLOG = "DeepCoder blog post, April 2025"
_ONE_SAMPLE = "one sample per problem, 279 problems: standard error about 2.9 points"
_ERRATA = (
    "graded as published: LiveCodeBench's ERRATA lists 12 problems with several correct answers of "
    "which only one is accepted, 2 interactive problems and 4 with wrong tests"
)


def load_problems(
    finder: DataFinder, release: str = "v5", start: str = "2024-08-01", end: str = "2025-02-01"
) -> TaskData:
    """Load the problems of contests with ``start`` <= date < ``end`` (ISO dates).

    Raises:
        BadSetting: unknown release, not an ISO date, or an empty window.
        BadData: no problem lies in the window.
    """
    if release not in RELEASES:
        raise BadSetting(
            f"options.livecodebench.release={release!r}: must be one of {', '.join(RELEASES)}"
        )
    first, last = _parse_option_date("start", start), _parse_option_date("end", end)
    if first >= last:
        raise BadSetting(f"options.livecodebench: start={start} must be before end={end}")
    # Each release adds one file to the one before: test.jsonl, test2.jsonl, ...
    files = [f"test{number or ''}" for number in (0, *range(2, RELEASES.index(release) + 2))]
    rows, origin = finder.find_rows(
        [f"livecodebench_{release}", "livecodebench"],
        hub=HubFiles(
            "livecodebench/code_generation_lite", tuple(f"{file}.jsonl" for file in files)
        ),
        parts=[f"livecodebench/{file}" for file in files],
    )

    def make_item(number: int, row: Row) -> TaskItem | None:
        day = _parse_contest_date(row["contest_date"])
        return _make_item(row, day) if first <= day < last else None

    data = read_items(rows, origin, make_item)
    data.notes.extend([f"release {release}, contests from {start} to before {end}", _ERRATA])
    return data


def _make_item(row: Row, day: datetime.date) -> TaskItem:
    program_format = (
        STARTER_FORMAT.format(starter=row["starter_code"])
        if row.get("starter_code")
        else STDIN_FORMAT
    )
    name = str(row.get("question_id") or row["question_title"])
    return TaskItem(
        id=name,
        messages=make_conversation(
            f"{EXPERT_INSTRUCTION}### Question:\n{row['question_content']}\n\n"
            f"{program_format}{ANSWER_FORMAT}"
        ),
        problem=read_livecodebench(row, name=name),
        prefill=CODE_PREFILL,
        tags={
            "difficulty": str(row.get("difficulty", "unknown")),
            "month": f"{day:%Y-%m}",
            "platform": str(row.get("platform", "unknown")),
        },
    )


def _parse_contest_date(text: str) -> datetime.date:
    try:
        return datetime.datetime.fromisoformat(str(text)).date()
    except ValueError as error:
        raise BadRow(f"contest_date: {error}") from error


def _parse_option_date(name: str, text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(str(text))
    except ValueError as error:
        raise BadSetting(
            f"options.livecodebench.{name}={text!r}: give an ISO date, e.g. 2024-08-01"
        ) from error


TASK = Task(
    name="livecodebench",
    title="LiveCodeBench",
    load=load_problems,
    size=279,
    sampling=REASONING_SAMPLING,
    options={"release": "v5", "start": "2024-08-01", "end": "2025-02-01"},
    published=(
        PublishedResult(
            "DeepCoder-14B-Preview",
            60.6,
            "pass@1",
            _BLOG,
            f"{_ONE_SAMPLE}; 64K tokens; checkpoint chosen on it",
        ),
        PublishedResult("DeepSeek-R1", 62.8, "pass@1", _BLOG, _ONE_SAMPLE),
        PublishedResult("o3-mini-2025-1-31 (low)", 60.9, "pass@1", _BLOG, _ONE_SAMPLE),
        PublishedResult("o1-2024-12-17 (low)", 59.5, "pass@1", _BLOG, _ONE_SAMPLE),
        PublishedResult(
            "DeepSeek-R1-Distill-Qwen-14B", 53.0, "pass@1", _BLOG, f"{_ONE_SAMPLE}; 64K tokens"
        ),
        PublishedResult(
            "DeepCoder-14B-Preview, a user's run", 57.0, "pass@1", "rllm#113", "same settings"
        ),
        PublishedResult("DeepCoder-1.5B-Preview", 25.1, "pass@1", _BLOG, _ONE_SAMPLE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-1.5B", 16.9, "pass@1", _BLOG, _ONE_SAMPLE),
    ),
)
