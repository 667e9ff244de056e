"""Builds candidates in parallel, and keeps each result: ``WORK/built.jsonl``, one line a candidate.

Invariants:
* A candidate is built once for the same settings. A kill loses only those in progress.
* What the sandbox failed on is not stored: the row says so, and the next call tries again.
* Rows come in the order of the candidates, whatever finished first.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

from verl_pipeline.errors import show_line
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, GeneratedRow, Rejection
from verl_pipeline.sandbox import SandboxError

# Raise it when the code changes what becomes of a candidate.
BUILDING_VERSION = 1
INFRASTRUCTURE = "the sandbox failed"
# Characters of a rejection that a row holds.
_MAX_REASON = 300

Proposal = tuple[str, Candidate | Rejection]
Build = Callable[[Candidate], GeneratedRow]


def build_rows(
    proposals: Iterable[Proposal],
    build: Build,
    settings: Any,
    store: Path,
    workers: int,
    advance: Callable[[], None],
) -> list[GeneratedRow]:
    """Return the row of each proposal, from ``store`` or built.

    Args:
        proposals: ids, with the candidates or with the reasons why there are none.
        build: builds one candidate; raises :class:`Rejection`.
        settings: what decides about a candidate besides itself, as JSON.
        store: file of results.
        workers: candidates that are built at a time.
        advance: called once per proposal.
    """
    with closing(JsonLinesFile(store)) as file:
        stored = {line["digest"]: line["row"] for line in file.read_rows()}
        rows: dict[int, GeneratedRow] = {}

        def list_missing() -> Iterator[tuple[int, Candidate, str]]:
            for number, (candidate_id, proposal) in enumerate(proposals):
                if isinstance(proposal, Rejection):
                    rows[number] = _reject(candidate_id, proposal)
                elif (line := stored.get(_digest(proposal, settings))) is not None:
                    rows[number] = _read_row(line)
                else:
                    yield number, proposal, _digest(proposal, settings)
                    continue
                advance()

        for number, digest, row in _build_each(list_missing(), build, workers):
            if digest is not None:
                file.append_row({"digest": digest, "row": dataclasses.asdict(row)})
            rows[number] = row
            advance()
    return [rows[number] for number in sorted(rows)]


def _build_each(
    missing: Iterator[tuple[int, Candidate, str]], build: Build, workers: int
) -> Iterator[tuple[int, str | None, GeneratedRow]]:
    """Yield number, digest and row of each candidate; no digest if the sandbox failed."""
    running: dict[Future[GeneratedRow], tuple[int, Candidate, str]] = {}
    with ThreadPoolExecutor(workers) as threads:
        while True:
            while len(running) < workers and (item := next(missing, None)) is not None:
                running[threads.submit(build, item[1])] = item
            if not running:
                return
            done, _pending = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number, candidate, digest = running.pop(future)
                try:
                    yield number, digest, future.result()
                except Rejection as rejection:
                    yield number, digest, _reject(candidate.id, rejection)
                except (SandboxError, OSError) as error:
                    failure = Rejection(INFRASTRUCTURE, str(error))
                    yield number, None, _reject(candidate.id, failure)


def _digest(candidate: Candidate, settings: Any) -> str:
    return candidate.digest([BUILDING_VERSION, settings])


def _reject(candidate_id: str, rejection: Rejection) -> GeneratedRow:
    detail = show_line(rejection.detail)[:_MAX_REASON]
    return GeneratedRow.from_rejection(candidate_id, Rejection(rejection.reason, detail))


def _read_row(line: dict[str, Any]) -> GeneratedRow:
    return GeneratedRow(**{**line, "solutions": tuple(line["solutions"])})
