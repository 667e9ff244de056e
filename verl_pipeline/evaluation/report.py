"""``report.html``: the results of an evaluation and its samples as one page that needs nothing but
a browser.

The page is report.html with the other report files beside it inlined, and all data as JSON.

Invariants:
* What a model wrote reaches the page as JSON without ``<``, ``>``, ``&``, and from there as text
  only: no markup of a response is ever parsed. The page loads nothing, and its policy forbids it
  to.
* At most :data:`MOST_SAMPLES` samples and :data:`MOST_CHARACTERS` of each text; what is left out is
  said on the page, with the file that has it. Counts are of all samples all the same.
* The page is there as a whole or not at all.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.store import Row, read_lines, write_text

# In a page, over all tasks.
MOST_SAMPLES = 3_000
# Of a prompt, a response, an answer or a reason; even, for its two ends are kept.
MOST_CHARACTERS = 10_000
UNGRADED = "ungraded"
_PARTS = ("report.css", "report_charts.js", "report_samples.js", "report.js")


@dataclass
class _Problem:
    """A problem as the page has it: ``verdicts`` counts all samples, ``samples`` are the first
    ``room`` of them.
    """

    id: str
    prompt: list[str | int]
    tags: Mapping[str, str]
    room: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    samples: list[Row] = field(default_factory=list)


def write_report(output: Path) -> Path:
    """Write ``output/report.html`` from ``output/results.json`` and the files of each task.

    Raises:
        ValueError: a line of a file, not a last one that was cut off, is no JSON; the message has
            its number.
    """
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    folders = [output / task["task"] for task in results["tasks"]]
    problems = [
        [_problem(row) for row in read_lines(folder / "problems.jsonl")] for folder in folders
    ]
    _share_room([problem for group in problems for problem in group])
    counted = [task["sampling"]["n"] for task in results["tasks"]]
    tasks = [
        _fill(folder, group, n) for folder, group, n in zip(folders, problems, counted, strict=True)
    ]
    path = output / "report.html"
    write_text(path, _page({"results": results, "tasks": tasks}))
    return path


def _page(data: Mapping[str, Any]) -> str:
    """The template with its parts and ``data`` in it; the data last, so that nothing in it is taken
    for a place.
    """
    page = _part("report.html")
    for name in _PARTS:
        page = page.replace("{{" + name + "}}", _part(name))
    return page.replace("{{data}}", _embeddable(data))


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _embeddable(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in; ASCII, so U+2028 and lone surrogates
    are escaped too.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _problem(row: Row) -> _Problem:
    return _Problem(id=row["id"], prompt=_shortened(row["prompt"]), tags=row.get("tags") or {})


def _share_room(problems: list[_Problem]) -> None:
    """Give each problem its share of MOST_SAMPLES, to within one."""
    count = len(problems)
    for index, problem in enumerate(problems):
        problem.room = (index + 1) * MOST_SAMPLES // count - index * MOST_SAMPLES // count


def _fill(folder: Path, problems: list[_Problem], n: int) -> dict[str, Any]:
    """A task's problems with their first ``n`` samples, which are those that count, and what to say
    of them.
    """
    by_id = {problem.id: problem for problem in problems}
    verdicts = {(row["id"], row["sample"]): row for row in read_lines(folder / "verdicts.jsonl")}
    for row in read_lines(folder / "samples.jsonl"):
        if row["sample"] >= n:
            continue
        problem, verdict = by_id[row["id"]], verdicts.get((row["id"], row["sample"]), {})
        problem.verdicts[verdict.get("verdict") or UNGRADED] += 1
        if row["sample"] < problem.room:
            problem.samples.append(_sample(row, verdict))
    for problem in problems:
        problem.samples.sort(key=lambda sample: sample["sample"])
    return {
        "problems": [vars(problem) for problem in problems],
        "notes": _notes(folder.name, problems),
    }


def _sample(row: Row, verdict: Row) -> Row:
    logprob = row.get("mean_logprob")
    return {
        "sample": row["sample"],
        "verdict": verdict.get("verdict") or UNGRADED,
        "facts": {
            "tokens": row.get("tokens"),
            "finish": row.get("finish"),
            "mean logprob": (
                None if logprob is None else f"{logprob:.3f}"
            ),  # text: it may be infinite
            "seed": row.get("seed"),
        },
        "reason": _shortened(verdict.get("reason") or ""),
        "answer": _shortened(verdict.get("answer") or ""),
        "response": _shortened(row["response"]),
    }


def _notes(folder: str, problems: list[_Problem]) -> list[str]:
    """What is not on the page, and where it is."""
    count = sum(problem.verdicts.total() for problem in problems)
    shown = sum(len(problem.samples) for problem in problems)
    cut_prompts = sum(len(problem.prompt) > 1 for problem in problems)
    cut_responses = sum(
        len(sample["response"]) > 1 for problem in problems for sample in problem.samples
    )
    notes = []
    if shown < count:
        notes.append(
            f"{shown:,} of {count:,} samples are shown, the first of each problem; all: "
            f"{folder}/samples.jsonl"
        )
    if cut_responses:
        notes.append(f"{_shortest(cut_responses, 'response')}; whole: {folder}/samples.jsonl")
    if cut_prompts:
        notes.append(f"{_shortest(cut_prompts, 'prompt')}; whole: {folder}/problems.jsonl")
    return notes


def _shortest(count: int, what: str) -> str:
    return (
        f"{count:,} {what}{'s' * (count > 1)} longer than {MOST_CHARACTERS:,} characters without "
        "the middle"
    )


def _shortened(text: str) -> list[str | int]:
    """The text, or its two ends and between them how many characters are left out."""
    half, left_out = MOST_CHARACTERS // 2, len(text) - MOST_CHARACTERS
    return [text] if left_out <= 0 else [text[:half], left_out, text[-half:]]
