"""One round: answers to all requests that have none yet, verdicts for all answers that have none
yet.

Invariants:
* A sample is stored when it comes, a verdict when it is known.
* Grading runs beside generation.
* A request that failed is asked once more, then left for the next call.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.engines import Engine, Failed, Generation, Request
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.store import Row, TaskStore
from verl_pipeline.evaluation.task import Item, Sampling
from verl_pipeline.progress import make_progress_bars

# Of a request, each time with the engine's own tries.
TRIES = 2


def ask_and_grade(
    name: str,
    items: Mapping[str, Item],
    requests: Sequence[Request],
    sampling: Sampling,
    engine: Engine,
    grader: Grader,
    store: TaskStore,
    console: Console,
) -> None:
    """Fill ``store``; ``name`` is what the bars are called."""
    missing = [request for request in requests if (request.id, request.sample) not in store.samples]
    wanted = {(request.id, request.sample) for request in requests}
    ungraded = [row for row in store.ungraded() if (row["id"], row["sample"]) in wanted]
    answered = len(requests) - len(missing)
    with make_progress_bars(console) as progress, ThreadPoolExecutor(grader.workers) as threads:
        answers = progress.add_task(f"{name}: answers", total=len(requests), completed=answered)
        verdicts = progress.add_task(
            f"{name}: graded", total=len(requests), completed=answered - len(ungraded)
        )
        grading: dict[Future[dict[str, Any]], Row] = {}

        def submit(row: Row) -> None:
            grading[threads.submit(grader.grade, items[row["id"]], row["response"])] = row

        def collect(finished: Iterable[Future[dict[str, Any]]]) -> None:
            for future in list(finished):
                row = grading.pop(future)
                store.add_verdict({"id": row["id"], "sample": row["sample"], **future.result()})
                progress.advance(verdicts)

        try:
            for row in ungraded:
                submit(row)
            for request, answer in _answers(engine, missing, sampling):
                key = {"id": request.id, "sample": request.sample}
                if isinstance(answer, Failed):
                    store.add_failure({**key, "reason": answer.reason})
                    continue
                row = {**key, "seed": request.seed, **dataclasses.asdict(answer)}
                store.add_sample(row)
                progress.advance(answers)
                submit(row)
                collect(future for future in grading if future.done())
            while grading:
                collect([next(iter(grading))])
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _answers(
    engine: Engine, requests: Sequence[Request], sampling: Sampling
) -> Iterator[tuple[Request, Generation | Failed]]:
    for _ in range(TRIES):
        failed = []
        if requests:  # an engine that is asked nothing need not load a model
            for request, answer in engine.generate(requests, sampling):
                if isinstance(answer, Failed):
                    failed.append(request)
                yield request, answer
        requests = failed
