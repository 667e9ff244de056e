"""LiveCodeBench code generation (Jain et al. 2024), by release and by the date of the contest.

The default window, 2024-08-01 up to but not including 2025-02-01 of release v5, holds 279 problems
and is the one that DeepCoder reports.
"""

import datetime

from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.task import Item, Loaded, Published, Task, asked
from verl_pipeline.evaluation.tasks._reading import (
    CODE_PREFILL,
    EXPERT,
    FROM_STDIN,
    REASONING,
    USE_BACKTICKS,
    WITH_STARTER,
    read_all,
)
from verl_pipeline.grading.readers import BadRow, read_livecodebench

RELEASES = ("v1", "v2", "v3", "v4", "v5", "v6")
_BLOG = "DeepCoder blog post, April 2025"
_ONE = "one sample a problem of 279: standard error about 2.9 points"
_ERRATA = (
    "graded as published: LiveCodeBench's ERRATA lists 12 problems with several right answers, of "
    "which one counts, 2 interactive ones and 4 with bad tests"
)


def load(
    finder: Finder, release: str = "v5", start: str = "2024-08-01", end: str = "2025-02-01"
) -> Loaded:
    """Problems of contests on ``start`` <= date < ``end`` (ISO dates).

    Raises:
        BadSetting: no such release, no ISO date, or no window.
        BadData: nothing lies in the window.
    """
    if release not in RELEASES:
        raise BadSetting(
            f"options.livecodebench.release={release!r}: must be one of {', '.join(RELEASES)}"
        )
    first, last = _date("start", start), _date("end", end)
    if first >= last:
        raise BadSetting(f"options.livecodebench: start={start} must be before end={end}")
    # A release is that of before and one file more: test.jsonl, test2.jsonl, ...
    files = [f"test{number or ''}" for number in (0, *range(2, RELEASES.index(release) + 2))]
    rows, origin = finder.find(
        [f"livecodebench_{release}", "livecodebench"],
        hub=Hub("livecodebench/code_generation_lite", tuple(f"{file}.jsonl" for file in files)),
        parts=[f"livecodebench/{file}" for file in files],
    )

    def read(number: int, row: Row) -> Item | None:
        day = _day(row["contest_date"])
        return _item(row, day) if first <= day < last else None

    loaded = read_all(rows, origin, read)
    loaded.notes.extend([f"release {release}, contests from {start} to before {end}", _ERRATA])
    return loaded


def _item(row: Row, day: datetime.date) -> Item:
    ask = (
        WITH_STARTER.format(starter=row["starter_code"]) if row.get("starter_code") else FROM_STDIN
    )
    name = str(row.get("question_id") or row["question_title"])
    return Item(
        id=name,
        messages=asked(f"{EXPERT}### Question:\n{row['question_content']}\n\n{ask}{USE_BACKTICKS}"),
        problem=read_livecodebench(row, name=name),
        prefill=CODE_PREFILL,
        tags={
            "difficulty": str(row.get("difficulty", "unknown")),
            "month": f"{day:%Y-%m}",
            "platform": str(row.get("platform", "unknown")),
        },
    )


def _day(text: str) -> datetime.date:
    try:
        return datetime.datetime.fromisoformat(str(text)).date()
    except ValueError as error:
        raise BadRow(f"contest_date: {error}") from error


def _date(name: str, text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(str(text))
    except ValueError as error:
        raise BadSetting(
            f"options.livecodebench.{name}={text!r}: an ISO date like 2024-08-01 is needed"
        ) from error


TASK = Task(
    name="livecodebench",
    title="LiveCodeBench",
    load=load,
    sampling=REASONING,
    options={"release": "v5", "start": "2024-08-01", "end": "2025-02-01"},
    published=(
        Published(
            "DeepCoder-14B-Preview",
            60.6,
            "pass@1",
            _BLOG,
            f"{_ONE}; 64K tokens; checkpoint chosen on it",
        ),
        Published("DeepSeek-R1", 62.8, "pass@1", _BLOG, _ONE),
        Published("o3-mini-2025-1-31 (low)", 60.9, "pass@1", _BLOG, _ONE),
        Published("o1-2024-12-17 (low)", 59.5, "pass@1", _BLOG, _ONE),
        Published("DeepSeek-R1-Distill-Qwen-14B", 53.0, "pass@1", _BLOG, f"{_ONE}; 64K tokens"),
        Published(
            "DeepCoder-14B-Preview, a user's run", 57.0, "pass@1", "rllm#113", "same settings"
        ),
        Published("DeepCoder-1.5B-Preview", 25.1, "pass@1", _BLOG, _ONE),
        Published("DeepSeek-R1-Distill-Qwen-1.5B", 16.9, "pass@1", _BLOG, _ONE),
    ),
)
