"""Writes ``report.html``: one self-contained page with the results and samples of an evaluation.

The page is results_page.html with the stylesheet, the scripts and all data (as JSON) inlined.

Invariants:
* Model output enters the page as JSON without ``<``, ``>`` and ``&``, and is shown as text only: no
  markup of a response is ever parsed. The page loads nothing, and its content security policy
  forbids loading.
* The page has at most :data:`MAX_SAMPLES` samples and :data:`MAX_CHARACTERS` characters of each
  text. It says what is omitted and which file has it. Counts always cover all samples.
* The page is written completely or not at all.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.caveats import mark_name, read_caveats
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import SAMPLE, VERDICT
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.files import Row, write_text

# Samples of a page, over all tasks.
MAX_SAMPLES = 3_000
# Characters of a prompt, response, answer or reason; even, since half is kept at either end.
MAX_CHARACTERS = 10_000
UNGRADED = "ungraded"
_ASSETS = (
    "results_page.css",
    "results_page_elements.js",
    "results_page_charts.js",
    "results_page_figures.js",
    "results_page_samples.js",
    "results_page.js",
)


@dataclass
class _PageProblem:
    """A problem on the page.

    Attributes:
        sample_limit: number of samples to show, from the first.
        verdicts: counts of all samples by verdict.
        samples: the shown samples.
    """

    id: str
    prompt: list[str | int]
    tags: Mapping[str, str]
    sample_limit: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    samples: list[Row] = field(default_factory=list)


def write_results_page(output: Path) -> Path:
    """Write ``output/report.html`` from ``output/results.json`` and the files of each task.

    Raises:
        ResultsError: there are no results.
        StoreError: a line of a file is not JSON, except for a cut-off last line; the message has
            its number.
    """
    results = read_results(output)
    folders = [output / task["task"] for task in results["tasks"]]
    problems = [
        [_make_problem(row) for row in read_records(folder / "problems.jsonl")]
        for folder in folders
    ]
    _set_sample_limits([problem for group in problems for problem in group])
    samples_per_problem = [task["sampling"]["n"] for task in results["tasks"]]
    tasks = [
        {"name": mark_name(task["title"], read_caveats(task))} | _read_task(folder, group, n)
        for task, folder, group, n in zip(
            results["tasks"], folders, problems, samples_per_problem, strict=True
        )
    ]
    path = output / "report.html"
    write_text(path, _fill_template({"results": results, "tasks": tasks}))
    return path


def _fill_template(data: Mapping[str, Any]) -> str:
    """Return the template with assets and data inlined.

    The data comes last, so that no placeholder inside it is replaced.
    """
    page = _read_asset("results_page.html")
    for name in _ASSETS:
        page = page.replace("{{" + name + "}}", _read_asset(name))
    return page.replace("{{data}}", _encode_json(data))


def _read_asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _encode_json(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end its script element.

    It is ASCII, so that U+2028 and lone surrogates are escaped too.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _make_problem(row: Row) -> _PageProblem:
    prompt = _shorten_text(row["prompt"])
    return _PageProblem(id=row["id"], prompt=prompt, tags=row.get("tags") or {})


def _set_sample_limits(problems: list[_PageProblem]) -> None:
    """Divide MAX_SAMPLES among the problems, equally to within one sample."""
    count = len(problems)
    for index, problem in enumerate(problems):
        problem.sample_limit = (index + 1) * MAX_SAMPLES // count - index * MAX_SAMPLES // count


def _read_task(folder: Path, problems: list[_PageProblem], n: int) -> dict[str, Any]:
    """Return a task's problems with their samples, and notes on what is omitted.

    Only the first ``n`` samples of a problem belong to the results: an earlier call may have drawn
    more.
    """
    by_id = {problem.id: problem for problem in problems}
    verdicts = {
        (row["id"], row["sample"]): row for row in read_records(folder / "verdicts.jsonl", VERDICT)
    }
    for row in read_records(folder / "samples.jsonl", SAMPLE):
        if row["sample"] >= n:
            continue
        problem, verdict = by_id[row["id"]], verdicts.get((row["id"], row["sample"]), {})
        problem.verdicts[verdict.get("verdict") or UNGRADED] += 1
        if row["sample"] < problem.sample_limit:
            problem.samples.append(_make_sample(row, verdict))
    for problem in problems:
        problem.samples.sort(key=lambda sample: sample["sample"])
    return {
        "problems": [vars(problem) for problem in problems],
        "notes": _list_omissions(folder.name, problems),
    }


def _make_sample(row: Row, verdict: Row) -> Row:
    logprob = row.get("mean_logprob")
    return {
        "sample": row["sample"],
        "verdict": verdict.get("verdict") or UNGRADED,
        "facts": {
            "tokens": row.get("tokens"),
            "finish": row.get("finish"),
            # As text, since it may be infinite, which JSON cannot express.
            "mean logprob": None if logprob is None else format_decimal(logprob, 3),
            "seed": row.get("seed"),
        },
        "reason": _shorten_text(verdict.get("reason") or ""),
        "answer": _shorten_text(verdict.get("answer") or ""),
        "response": _shorten_text(row["response"]),
    }


def _list_omissions(folder: str, problems: list[_PageProblem]) -> list[str]:
    """Return notes on what the page omits and which file has it."""
    count = sum(problem.verdicts.total() for problem in problems)
    shown = sum(len(problem.samples) for problem in problems)
    cut_prompts = sum(len(problem.prompt) > 1 for problem in problems)
    cut_responses = sum(
        len(sample["response"]) > 1 for problem in problems for sample in problem.samples
    )
    notes = []
    if shown < count:
        notes.append(
            f"{shown:,} of {count:,} samples are shown, the first of each problem; all are in "
            f"{folder}/samples.jsonl"
        )
    if cut_responses:
        notes.append(_describe_cut(cut_responses, "response", f"{folder}/samples.jsonl"))
    if cut_prompts:
        notes.append(_describe_cut(cut_prompts, "prompt", f"{folder}/problems.jsonl"))
    return notes


def _describe_cut(count: int, kind: str, file: str) -> str:
    kinds = kind + "s" * (count > 1)
    return (
        f"{count:,} {kinds} longer than {MAX_CHARACTERS:,} characters: the middle is left out; "
        f"the full text is in {file}"
    )


def _shorten_text(text: str) -> list[str | int]:
    """Return [text]; for a long text, [start, number of omitted characters, end]."""
    half, omitted = MAX_CHARACTERS // 2, len(text) - MAX_CHARACTERS
    return [text] if omitted <= 0 else [text[:half], omitted, text[-half:]]
