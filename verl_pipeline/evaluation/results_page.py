"""Writes ``report.html``: one self-contained page with the results and samples of an evaluation.

Invariants:
* The page has at most :data:`MAX_SAMPLES` samples and :data:`MAX_CHARACTERS` characters of each
  text. It says what is left out and which file has it. Counts always cover all samples.
* Only the first ``n`` samples of a problem belong to the results: an earlier call may have drawn
  more.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.caveats import mark_name, read_caveats
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import SAMPLE, VERDICT
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.files import Row
from verl_pipeline.report.evaluation_page import EvaluatedTask, write_evaluation_page
from verl_pipeline.report.rollouts import shorten_text

# Samples of a page, over all tasks.
MAX_SAMPLES = 3_000
# Characters of a prompt, response, answer or reason.
MAX_CHARACTERS = 10_000
UNGRADED = "ungraded"


def write_results_page(output: Path) -> Path:
    """Write ``output/report.html`` from ``output/results.json`` and the files of each task.

    Raises:
        ResultsError: there are no results.
        StoreError: a line of a file is not JSON, except for a cut-off last line; the message has
            its number.
    """
    results = read_results(output)
    path = output / "report.html"
    write_evaluation_page(path, results, read_tasks(output, results))
    return path


def read_tasks(output: Path, results: Mapping[str, Any]) -> list[EvaluatedTask]:
    """Return what the page shows of each task.

    Args:
        output: the folder of the evaluation.
        results: the content of its ``results.json``.

    Raises:
        StoreError: as :func:`write_results_page`.
    """
    rows = [list(read_records(output / t["task"] / "problems.jsonl")) for t in results["tasks"]]
    count, before, tasks = sum(map(len, rows)), 0, []
    for result, own in zip(results["tasks"], rows, strict=True):
        # The samples of a page are divided among its problems, equally to within one sample.
        ends = [i * MAX_SAMPLES // max(count, 1) for i in range(before, before + len(own) + 1)]
        limits = [end - start for start, end in pairwise(ends)]
        before += len(own)
        folder, caveats = output / result["task"], read_caveats(result)
        problems = _read_problems(folder, own, limits, result["sampling"]["n"])
        tasks.append(
            EvaluatedTask(
                result,
                mark_name(result["title"], caveats),
                [caveat.text for caveat in caveats if caveat.bars],
                [caveat.text for caveat in caveats if not caveat.bars],
                problems,
                _list_omissions(folder.name, problems),
            )
        )
    return tasks


def _read_problems(folder: Path, rows: list[Row], limits: list[int], n: int) -> list[Row]:
    """Return a task's problems, each with as many of its first ``n`` samples as its limit."""
    found = {
        row["id"]: {
            "id": row["id"],
            "prompt": _shorten(row["prompt"], f"{folder.name}/problems.jsonl"),
            "tags": row.get("tags") or {},
            "verdicts": Counter(),
            "samples": [],
        }
        for row in rows
    }
    limit_of = {row["id"]: limit for row, limit in zip(rows, limits, strict=True)}
    verdicts = {
        (row["id"], row["sample"]): row for row in read_records(folder / "verdicts.jsonl", VERDICT)
    }
    for row in read_records(folder / "samples.jsonl", SAMPLE):
        if row["sample"] >= n:
            continue
        problem, verdict = found[row["id"]], verdicts.get((row["id"], row["sample"]), {})
        problem["verdicts"][verdict.get("verdict") or UNGRADED] += 1
        if row["sample"] < limit_of[row["id"]]:
            problem["samples"].append(_show_sample(row, verdict, folder.name))
    for problem in found.values():
        problem["samples"].sort(key=lambda sample: sample["sample"])
    return [
        problem
        | {"count": problem["verdicts"].total(), "accepted": problem["verdicts"]["accepted"]}
        for problem in found.values()
    ]


def _show_sample(row: Row, verdict: Row, folder: str) -> Row:
    logprob = row.get("mean_logprob")
    facts: Mapping[str, Any] = {
        "tokens": row.get("tokens"),
        "finish": row.get("finish"),
        "mean logprob": None if logprob is None else format_decimal(logprob, 3),
        "seed": row.get("seed"),
    }
    return {
        "sample": row["sample"],
        "verdict": verdict.get("verdict") or UNGRADED,
        "facts": ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None),
        "reason": _shorten(verdict.get("reason") or "", f"{folder}/verdicts.jsonl"),
        "answer": _shorten(verdict.get("answer") or "", f"{folder}/verdicts.jsonl"),
        "response": _shorten(row["response"], f"{folder}/samples.jsonl"),
    }


def _list_omissions(folder: str, problems: list[Row]) -> list[str]:
    count = sum(problem["count"] for problem in problems)
    shown = sum(len(problem["samples"]) for problem in problems)
    if shown == count:
        return []
    return [
        f"{shown:,} of {count:,} samples are shown, the first of each problem; all are in "
        f"{folder}/samples.jsonl"
    ]


def _shorten(text: str, place: str) -> str:
    return shorten_text(text, MAX_CHARACTERS, place)
