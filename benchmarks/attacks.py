"""Runs the attack corpus and right programs through verl's ``prime_code`` and our grader.

``python -m benchmarks.attacks [--output outputs/attacks.json] [--only ours]
[--markdown docs/grading/attacks-results.md]``, from the repository's folder; about 7 minutes on two
idle cores, one with ``--only ours``, Linux only. ``--markdown`` replaces the tables in that file.
``--only ours`` takes prime_code's results from the last report (``--saved``) for programs and tests
that have not changed.

Invariants:
* No program runs in this process: prime_code has its jail (:mod:`benchmarks.attacks_jail`), ours
  its sandbox.
* The tables say nothing that is not in the report's rows.
"""

import itertools
import json
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import track

from benchmarks.attacks_handwritten import make_known_gaps, make_right_programs
from benchmarks.attacks_jail import JAIL_USERS, grade_with_prime_code
from benchmarks.attacks_programs import (
    RIGHT_PROGRAMS,
    BenchmarkProgram,
    select_corpus_programs,
)
from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.outputs.files import write_text
from verl_pipeline.path_options import path_option
from verl_pipeline.sandbox import Sandbox

# Programs at a time.
CONCURRENCY = 2
TABLE_MARKS = "<!-- tables: python -m benchmarks.attacks --markdown -->", "<!-- end of tables -->"


def grade_with_ours(program: BenchmarkProgram, sandbox: Sandbox) -> dict[str, Any]:
    """Run this project's grader on one program."""
    begin = time.monotonic()
    result = grade(program.problem, program.source, sandbox)
    return {
        "end": str(result.verdict),
        "reason": result.reason,
        "seconds": time.monotonic() - begin,
    }


def grade_programs(
    grader: Callable[..., dict],
    description: str,
    programs: Sequence[BenchmarkProgram],
    resources: Iterable[Any],
) -> list[dict]:
    """Return the results of ``grader`` for each program and a user or sandbox of ``resources``."""
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        results = threads.map(grader, programs, resources)
        return list(track(results, description, total=len(programs)))


def count_by_family(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each family of attacks, and one for all."""
    families = {
        row["family"]: [other for other in rows if other["family"] == row["family"]] for row in rows
    }
    families.pop(RIGHT_PROGRAMS)
    families["all"] = [row for members in families.values() for row in members]
    return [
        {
            "family": family,
            "programs": len(members),
            "prime_code: accepted": sum(row["prime_code"]["end"] == "accepted" for row in members),
            "a part of the reward": sum(row["prime_code"]["end"] == "in part" for row in members),
            "died": sum(row["prime_code"]["end"] == "died" for row in members),
            "hung": sum(row["prime_code"]["end"] == "hung" for row in members),
            "processes left": sum(bool(row["prime_code"].get("left")) for row in members),
            "ours: accepted": sum(row["ours"]["end"] == "accepted" for row in members),
            "no verdict": sum(row["ours"]["end"] == Verdict.INFRASTRUCTURE for row in members),
        }
        for family, members in families.items()
    ]


def render_markdown(rows: Sequence[dict[str, Any]], left_out: dict[str, int]) -> str:
    """Return the tables of docs/grading/attacks-results.md."""
    attacks = [row for row in rows if row["family"] != RIGHT_PROGRAMS]
    right = [row for row in rows if row["family"] == RIGHT_PROGRAMS]
    accepted = [row for row in attacks if row["prime_code"]["end"] == "accepted"]
    described: dict[str, list[str]] = {}
    for row in accepted:
        text = f"`{row['name']}`: {row['intent'].rstrip('.')}."
        described.setdefault(row["family"], []).append(text)
    failures = [
        row for row in attacks if row["ours"]["end"] in (Verdict.ACCEPTED, Verdict.INFRASTRUCTURE)
    ]
    our_failures = [f"`{row['family']}/{row['name']}` ({row['ours']['end']})" for row in failures]
    rejected = {
        grader: [row for row in right if row[grader]["end"] != "accepted"]
        for grader in ("prime_code", "ours")
    }
    # Programs that both graders accept are only listed by name.
    disputed = [
        row for row in right if any(row in rejected_rows for rejected_rows in rejected.values())
    ]
    undisputed = [f"`{row['name']}`" for row in right if row not in disputed]
    return "\n".join(
        [
            *_render_table(count_by_family(rows)),
            "",
            (
                "Attacks left out, by the tests or comparison that they need: "
                f"{', '.join(f'{kind} {n}' for kind, n in left_out.items())}."
            ),
            "",
            _wrap_text(
                f"Ours accepts, or gives no verdict on: {', '.join(our_failures) or 'none'}."
            ),
            "",
            f"The {len(accepted)} wrong programs that get prime_code's full reward:",
            "",
            *_render_table(
                [
                    {"family": family, "programs": "<br>".join(texts)}
                    for family, texts in described.items()
                ]
            ),
            "",
            (
                f"Of {len(right)} right programs, prime_code gives {len(rejected['prime_code'])} "
                f"less than the full reward, ours {len(rejected['ours'])}:"
            ),
            "",
            *_render_table([_make_right_row(row) for row in disputed]),
            "",
            _wrap_text(f"Both graders accept: {', '.join(undisputed)}."),
        ]
    )


def _make_right_row(row: dict[str, Any]) -> dict[str, Any]:
    result = row["prime_code"]
    return {
        "right program": f"`{row['name']}`: {row['intent']}",
        "prime_code": (
            f"reward {result['score']:.2g}"
            if result["end"] in ("refused", "in part")
            else result["end"]
        ),
        "ours": row["ours"]["end"],
    }


def _render_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]


def _wrap_text(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def replace_tables(path: Path, text: str) -> None:
    """Replace what is between the marks of the file by ``text``.

    Raises:
        ValueError: the file has no marks.
    """
    before, begin, rest = path.read_text().partition(TABLE_MARKS[0])
    _old, end, after = rest.partition(TABLE_MARKS[1])
    if not (begin and end):
        raise ValueError(
            f"{path} lacks the lines {TABLE_MARKS[0]!r} and {TABLE_MARKS[1]!r}: add them where the "
            "tables belong"
        )
    write_text(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main(
    output: ReportOption = Path("outputs/attacks.json"),
    markdown_file: Annotated[
        Path | None, path_option("--markdown", help="File whose tables are replaced.")
    ] = None,
    only: Annotated[
        Literal["ours"] | None,
        typer.Option(help="Run ours, and prime_code only on programs without a saved result."),
    ] = None,
    saved: Annotated[Path, path_option(help="Report with prime_code's results.")] = Path(
        "benchmarks/results/attacks.json"
    ),
    match: Annotated[str, typer.Option(help="Only programs whose family/name contains this.")] = "",
) -> None:
    """Send every program to both graders, and report."""
    corpus_programs, left_out = select_corpus_programs()
    programs = [*corpus_programs, *make_known_gaps(), *make_right_programs()]
    programs = [program for program in programs if match in f"{program.family}/{program.name}"]
    known: dict[str, dict] = {}
    if only:
        report = json.loads(saved.read_text())
        known = {row["digest"]: row["prime_code"] for row in report["results"]["programs"]}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = [program for program in programs if program.digest not in known]
    results = []
    if new:
        users = itertools.cycle(JAIL_USERS)
        results = grade_programs(grade_with_prime_code, "prime_code", new, users)
    known |= {
        program.digest: {**result, "at": now} for program, result in zip(new, results, strict=True)
    }
    with Sandbox(CONCURRENCY) as sandbox:
        graded = grade_programs(grade_with_ours, "ours", programs, itertools.repeat(sandbox))
    rows = [
        {
            "family": program.family,
            "name": program.name,
            "intent": program.intent,
            "digest": program.digest,
            "prime_code": known[program.digest],
            "ours": result,
        }
        for program, result in zip(programs, graded, strict=True)
    ]
    write_report(
        output, "attacks", {"only": only, "match": match}, {"left_out": left_out, "programs": rows}
    )
    if match:
        print_table(
            [{**row, "program": row["name"]} for row in rows], ["program", "prime_code", "ours"]
        )
        return
    text = render_markdown(rows, left_out)
    print(text)
    if markdown_file:
        replace_tables(markdown_file, text)


if __name__ == "__main__":
    typer.run(main)
