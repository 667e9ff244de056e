"""The attack corpus and right programs through verl's ``prime_code`` and ours: what each of them
accepts.

``python -m benchmarks.attacks [--output outputs/attacks.json] [--markdown docs/graders.md] [--only
ours]``, from the repository's folder; about 7 minutes on two idle cores, one with ``--only ours``,
Linux only. ``--markdown`` renews the tables in that file; ``--only ours`` takes prime_code's rows
from the last report (``--saved``), as far as programs and tests are what they were.

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

from benchmarks.attacks_jail import USERS, prime_code
from benchmarks.attacks_programs import RIGHT_PROGRAMS, Program, programs
from benchmarks.common import print_table, write_report
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.sandbox import Sandbox

AT_ONCE = 2
MARKS = "<!-- tables: python -m benchmarks.attacks --markdown -->", "<!-- end of tables -->"


def ours(program: Program, sandbox: Sandbox) -> dict[str, Any]:
    """This project's grader on one program."""
    begin = time.monotonic()
    result = grade(program.problem, program.source, sandbox)
    return {
        "end": str(result.verdict),
        "reason": result.reason,
        "seconds": time.monotonic() - begin,
    }


def all_of(
    grader: Callable[..., dict], what: str, chosen: Sequence[Program], places: Iterable[Any]
) -> list[dict]:
    """What ``grader`` says of each program, given a user or a sandbox of ``places``; ``AT_ONCE`` at
    a time.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(track(threads.map(grader, chosen, places), what, total=len(chosen)))


def counts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each family of attacks, and their sum."""
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


def markdown(rows: Sequence[dict[str, Any]], left_out: dict[str, int]) -> str:
    """The tables of docs/graders.md."""
    attacks = [row for row in rows if row["family"] != RIGHT_PROGRAMS]
    right = [row for row in rows if row["family"] == RIGHT_PROGRAMS]
    accepted = [row for row in attacks if row["prime_code"]["end"] == "accepted"]
    named: dict[str, list[str]] = {}
    for row in accepted:
        named.setdefault(row["family"], []).append(f"`{row['name']}`: {row['intent'].rstrip('.')}.")
    slipped = [
        row for row in attacks if row["ours"]["end"] in (Verdict.ACCEPTED, Verdict.INFRASTRUCTURE)
    ]
    by_ours = [f"`{row['family']}/{row['name']}` ({row['ours']['end']})" for row in slipped]
    withheld = {
        by: [row for row in right if row[by]["end"] != "accepted"] for by in ("prime_code", "ours")
    }
    # What both call right needs no line.
    differ = [row for row in right if any(row in refused for refused in withheld.values())]
    same = [f"`{row['name']}`" for row in right if row not in differ]
    return "\n".join(
        [
            *_lines(counts(rows)),
            "",
            (
                "Attacks left out, by what they are about: "
                f"{', '.join(f'{kind} {n}' for kind, n in left_out.items())}."
            ),
            "",
            _wrapped(f"Ours accepts, or gives no verdict on: {', '.join(by_ours) or 'none'}."),
            "",
            f"The {len(accepted)} wrong programs with prime_code's full reward:",
            "",
            *_lines(
                [
                    {"family": family, "programs": "<br>".join(texts)}
                    for family, texts in named.items()
                ]
            ),
            "",
            (
                f"Of {len(right)} right programs, prime_code withholds the reward, or a part of it,"
                f" from {len(withheld['prime_code'])}, ours from {len(withheld['ours'])}:"
            ),
            "",
            *_lines([_right_row(row) for row in differ]),
            "",
            _wrapped(f"Right to both: {', '.join(same)}."),
        ]
    )


def _right_row(row: dict[str, Any]) -> dict[str, Any]:
    found = row["prime_code"]
    return {
        "right program": f"`{row['name']}`: {row['intent']}",
        "prime_code": (
            f"reward {found['score']:.2g}"
            if found["end"] in ("refused", "in part")
            else found["end"]
        ),
        "ours": row["ours"]["end"],
    }


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = list(rows[0])
    text = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in text]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)


def renew(path: Path, text: str) -> None:
    """Put ``text`` between the marks of the file.

    Raises:
        ValueError: the file has no marks.
    """
    before, begin, rest = path.read_text().partition(MARKS[0])
    _old, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise ValueError(
            f"{path} has no lines {MARKS[0]!r} and {MARKS[1]!r} for the tables to come between"
        )
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main(
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("outputs/attacks.json"),
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="File whose tables to renew.")
    ] = None,
    only: Annotated[
        Literal["ours"] | None, typer.Option(help="Run ours; prime_code where it has no row.")
    ] = None,
    saved: Annotated[Path, typer.Option(help="Report with prime_code's rows.")] = Path(
        "benchmarks/results/attacks.json"
    ),
    match: Annotated[
        str, typer.Option(help="Only programs with this in family/name; for trying out.")
    ] = "",
) -> None:
    """Send every program to both graders, and report."""
    chosen, left_out = programs()
    chosen = [program for program in chosen if match in f"{program.family}/{program.name}"]
    known: dict[str, dict] = {}
    if only:
        report = json.loads(saved.read_text())
        known = {row["digest"]: row["prime_code"] for row in report["results"]["programs"]}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = [program for program in chosen if program.digest not in known]
    found = all_of(prime_code, "prime_code", new, itertools.cycle(USERS)) if new else []
    known |= {program.digest: {**row, "at": now} for program, row in zip(new, found, strict=True)}
    with Sandbox(AT_ONCE) as sandbox:
        graded = all_of(ours, "ours", chosen, itertools.repeat(sandbox))
    rows = [
        {
            "family": program.family,
            "name": program.name,
            "intent": program.intent,
            "digest": program.digest,
            "prime_code": known[program.digest],
            "ours": result,
        }
        for program, result in zip(chosen, graded, strict=True)
    ]
    write_report(
        output, "attacks", {"only": only, "match": match}, {"left_out": left_out, "programs": rows}
    )
    if match:
        print_table(
            [{**row, "program": row["name"]} for row in rows], ["program", "prime_code", "ours"]
        )
        return
    text = markdown(rows, left_out)
    print(text)
    if markdown_file:
        renew(markdown_file, text)


if __name__ == "__main__":
    typer.run(main)
