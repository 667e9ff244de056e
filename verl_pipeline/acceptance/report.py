"""The acceptance table, and what it comes to.

Invariant: exit code 0 means that every row passed; a row that could not be checked is no pass.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_pipeline.acceptance.rows import Row, Verdict
from verl_pipeline.testing.runs import OUTPUT, RAY_LOGS

EXIT_PASSED, EXIT_FAILED, EXIT_UNCHECKED = 0, 1, 3
_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.UNCHECKED: "yellow"}
EXPLAINED = "docs/acceptance.md"


def print_report(console: Console, rows: Sequence[Row], kept: Path | None) -> int:
    """Print the table and the summary, and return the exit code.

    Args:
        kept: where the log and the records of the run are; None: removed.
    """
    table = Table()
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    for row in rows:
        table.add_row(Text(row.name), Text(row.verdict, _STYLES[row.verdict]), Text(row.detail))
    console.print(table)
    for row in rows:
        if row.verdict is Verdict.FAILED:
            console.print(Text(f"{row.name}: what to do: {row.fix}"), soft_wrap=True)
    counts = Counter(row.verdict for row in rows)
    console.print(Text(_summarize(counts)), soft_wrap=True)
    if kept is not None:
        console.print(Text(f"log: {kept / OUTPUT}"), soft_wrap=True)
        if (logs := kept / RAY_LOGS).is_dir():
            console.print(Text(f"Ray's logs, each worker's own: {logs}"), soft_wrap=True)
    if counts[Verdict.FAILED]:
        return EXIT_FAILED
    return EXIT_UNCHECKED if counts[Verdict.UNCHECKED] else EXIT_PASSED


def _summarize(counts: Counter[Verdict]) -> str:
    total, passed = counts.total(), counts[Verdict.PASSED]
    failed, unchecked = counts[Verdict.FAILED], counts[Verdict.UNCHECKED]
    if failed:
        return (
            f"FAIL: {failed} of {total} checks failed; {passed} passed, {unchecked} unchecked. "
            f"{EXPLAINED} explains each row"
        )
    if unchecked:
        return (
            f"{passed} of {total} checks passed; {unchecked} could not be made, which is neither a "
            f"pass nor a failure. {EXPLAINED} explains each row"
        )
    return f"all {total} checks passed"
