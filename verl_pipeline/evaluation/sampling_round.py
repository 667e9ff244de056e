"""One sampling round: generate the missing samples and grade the ungraded ones.

Invariants:
* Samples and verdicts are stored as soon as they exist.
* Grading runs in threads beside generation.
* A failed request is repeated once; if it fails again, it is left to the next call. The reason of
  the first failure is shown at once, and so is that of the first failed grading.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.engines import Engine, FailedRequest, Generation, SampleRequest
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.score_tables import print_line
from verl_pipeline.evaluation.store import Row, TaskStore
from verl_pipeline.evaluation.task import SamplingParameters, TaskItem
from verl_pipeline.progress import make_progress_bars

# Passes over the failed requests; within a pass, the engine has tries of its own.
GENERATION_PASSES = 2


def sample_and_grade(
    title: str,
    items: Mapping[str, TaskItem],
    requests: Sequence[SampleRequest],
    sampling: SamplingParameters,
    engine: Engine,
    grader: Grader,
    store: TaskStore,
    console: Console,
) -> None:
    """Add the samples of ``requests`` and their verdicts to ``store``.

    Args:
        title: label of the progress bars.
        items: problems by id.
    """
    missing = [request for request in requests if (request.id, request.sample) not in store.samples]
    requested = {(request.id, request.sample) for request in requests}
    ungraded = [
        row for row in store.list_ungraded_samples() if (row["id"], row["sample"]) in requested
    ]
    generated_count = len(requests) - len(missing)
    with make_progress_bars(console) as progress, ThreadPoolExecutor(grader.workers) as threads:
        generation_bar = progress.add_task(
            f"{title}: generated", total=len(requests), completed=generated_count
        )
        grading_bar = progress.add_task(
            f"{title}: graded", total=len(requests), completed=generated_count - len(ungraded)
        )
        gradings: dict[Future[dict[str, Any]], Row] = {}

        def submit_grading(row: Row) -> None:
            gradings[threads.submit(grader.grade_item, items[row["id"]], row["response"])] = row

        has_failed = is_ungraded = False

        def store_verdicts(finished: Iterable[Future[dict[str, Any]]]) -> None:
            nonlocal is_ungraded
            for future in list(finished):
                row, verdict = gradings.pop(future), future.result()
                store.add_verdict({"id": row["id"], "sample": row["sample"], **verdict})
                if verdict["reward"] is None and not is_ungraded:
                    is_ungraded = True
                    print_line(
                        console,
                        f"{title}: sample {row['sample']} of {row['id']} could not be graded: "
                        f"{verdict['reason']} (further failures go to verdicts.jsonl only)",
                        "red",
                    )
                progress.advance(grading_bar)

        try:
            for row in ungraded:
                submit_grading(row)
            for request, answer in _generate_with_retries(engine, missing, sampling):
                key = {"id": request.id, "sample": request.sample}
                if isinstance(answer, FailedRequest):
                    if not has_failed:
                        print_line(
                            console,
                            f"{title}: sample {request.sample} of {request.id} failed: "
                            f"{answer.reason} (further failures go to failures.jsonl only; a "
                            "failed request is repeated once)",
                            "red",
                        )
                    has_failed = True
                    store.add_failure({**key, "reason": answer.reason})
                    continue
                row = {**key, "seed": request.seed, **dataclasses.asdict(answer)}
                if answer.token_confidences is None:
                    del row["token_confidences"]
                store.add_sample(row)
                progress.advance(generation_bar)
                submit_grading(row)
                store_verdicts(future for future in gradings if future.done())
            while gradings:
                store_verdicts([next(iter(gradings))])
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            grader.end_rewards()
            raise


def _generate_with_retries(
    engine: Engine, requests: Sequence[SampleRequest], sampling: SamplingParameters
) -> Iterator[tuple[SampleRequest, Generation | FailedRequest]]:
    for _ in range(GENERATION_PASSES):
        failed = []
        if requests:  # without requests, the engine need not load its model
            for request, answer in engine.generate(requests, sampling):
                if isinstance(answer, FailedRequest):
                    failed.append(request)
                yield request, answer
        requests = failed
