"""Reward for code, for verl's reward loop: tests in the sandbox, 1 if all pass, else 0.

    reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code
    +reward.custom_reward_function.reward_kwargs.workers=8        # and the other arguments of `compute_score`

``reward_model.ground_truth`` is what the row's source calls its tests, ``data_source`` the name of
its reader (:data:`verl_pipeline.grading.readers.READERS`), so DeepCoder's data sets need no
conversion.

Invariants:
* Every result has the same keys, of the same types.
* A failure of ours has the verdict ``infrastructure``, which the filter of that name drops; its
  score is no judgement.
* At most ``workers`` programs run at a time on a node, however many reward workers verl starts
  there.
* The event loop is never blocked: grading happens in threads, each of which ends by the sandbox's
  own deadlines.
"""

import asyncio
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from verl_pipeline.grading import Problem, Result, Verdict, grade_response
from verl_pipeline.grading.readers import READERS, BadRow
from verl_pipeline.grading.select import longest_inputs, sample
from verl_pipeline.sandbox import RemoteSandbox, Sandbox, sandbox_of

logger = logging.getLogger(__name__)

# Seconds between two looks for a free place on the node.
_LOOK_S = 0.01
_lock = threading.Lock()


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    source: str | None = None,
    workers: int | None = None,
    tier: str = "namespaces",
    url: str | None = None,
    selection: str = "deepcoder",
    partial_credit: bool = False,
    format_penalty: float = 0.0,
    prefix: str = "",
    queue_s: float = 1800.0,
    deadline_s: float = 1800.0,
    **_unused: Any,
) -> dict[str, float | str]:
    """Grade one response.

    Args:
        data_source: of verl's interface; names the reader if ``source`` does not.
        solution_str: the response, as text.
        ground_truth: the tests, as the source publishes them, as JSON text.
        extra_info: of verl's interface; ``name`` is used in messages.
        source: name of the reader of ``ground_truth``.
        workers: programs at a time on this node; by default one for each processor.
        tier: isolation, see :mod:`verl_pipeline.sandbox.launch`; ``remote`` for a server of
            SandboxFusion's.
        url: of that server.
        selection: of the tests: ``deepcoder`` (the 15 longest inputs, all for LiveCodeBench:
            section "Reward" of the DeepCoder blog post), ``all``, ``longest:N`` or
            ``sample:N:SEED``.
        partial_credit: score the share of tests passed before the first failure, instead of 0.
        format_penalty: taken off the score of a response without a complete block of code.
        prefix: what the chat template begins the answer with, such as ``"<think>\\n"``; verl hands
            over what comes behind it only, and without it a response cut off within its thoughts
            would be graded on a draft.
        queue_s: longest time to wait for a place on this node.
        deadline_s: longest time for queue and grading together; after it the verdict is
            ``infrastructure``.

    Returns:
        ``score`` and ``acc`` (1.0 if all tests pass), ``verdict``, ``reason``, ``tier``, and
        seconds: ``queue_s``, ``grading_s``, ``cpu_s``; ``busy``: programs at that moment in this
        process; ``calibration``: how much slower this processor ran Python than the one on which
        limits were tried (0 if nothing ran).

    Raises:
        ValueError: no reader for ``data_source``, tests that it cannot read, or no such
            ``selection``.
    """
    problem = _problem(
        source or data_source, ground_truth, selection, str((extra_info or {}).get("name", "?"))
    )
    count = workers or len(os.sched_getaffinity(0))
    begin = time.monotonic()
    sandbox = _sandbox(count, tier, url)
    loop = asyncio.get_running_loop()
    response = prefix + solution_str
    work = loop.run_in_executor(
        _threads(count, os.getpid()), _grade, problem, response, sandbox, queue_s, begin
    )
    try:
        result, queued_s = await asyncio.wait_for(work, deadline_s)
    except TimeoutError as error:
        reason = str(error) or f"not graded within {deadline_s:g} s"
        result = Result(Verdict.INFRASTRUCTURE, reason, tier=tier)
        queued_s = time.monotonic() - begin
    if result.verdict is Verdict.INFRASTRUCTURE:
        logger.error("%s %s could not be graded: %s", data_source, problem.name, result.reason)
    score = result.reward or 0.0
    if partial_credit and not score and result.total:
        score = result.passed / result.total
    if result.verdict is Verdict.NO_CODE:
        score -= format_penalty
    return {
        "score": score,
        "acc": result.reward or 0.0,
        "grader": "code",
        "verdict": str(result.verdict),
        "reason": result.reason,
        "tier": result.tier or tier,
        "queue_s": queued_s,
        "grading_s": time.monotonic() - begin - queued_s,
        "cpu_s": result.cpu_s,
        "busy": float(sandbox.busy),
        "calibration": sandbox.calibration or 0.0,
    }


def _grade(
    problem: Problem, response: str, sandbox: Sandbox | RemoteSandbox, queue_s: float, begin: float
) -> tuple[Result, float]:
    with _place_on_node(sandbox.workers, queue_s):
        queued_s = time.monotonic() - begin
        return grade_response(problem, response, sandbox), queued_s


@contextmanager
def _place_on_node(places: int, longest_s: float) -> Iterator[None]:
    """One of ``places``, shared by all processes of this user and network namespace.

    A place is an abstract Unix address: free again the moment its holder ends, however it ends, and
    no file.

    Raises:
        TimeoutError: none was free in time.
    """
    deadline = time.monotonic() + longest_s
    first = threading.get_ident() % places
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        while True:
            for place in range(places):
                try:
                    holder.bind(f"\0verl_pipeline_grading_{os.getuid()}_{(first + place) % places}")
                except OSError:
                    continue
                yield
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"none of this node's {places} places for grading was free for {longest_s:g} s"
                )
            time.sleep(_LOOK_S)


@functools.lru_cache(maxsize=256)
def _problem(source: str, ground_truth: str, selection: str, name: str) -> Problem:
    """Read once for a group of responses."""
    if source not in READERS:
        raise ValueError(f"source={source!r}: no reader; there are {', '.join(sorted(READERS))}")
    try:
        problem = READERS[source](ground_truth, name=name, source=source)
    except BadRow as error:
        raise ValueError(f"ground_truth of {source} {name}: {error}") from error
    return _selected(problem, selection)


def _selected(problem: Problem, selection: str) -> Problem:
    kind, *numbers = selection.split(":")
    match kind, numbers:
        case "all", []:
            return problem
        case "deepcoder", []:
            return problem if problem.source == "livecodebench" else longest_inputs(problem)
        case "longest", [count] if count.isdigit():
            return longest_inputs(problem, int(count))
        case "sample", [count, seed] if count.isdigit() and seed.isdigit():
            return sample(problem, int(count), int(seed))
    raise ValueError(
        f"selection={selection!r}: must be 'deepcoder', 'all', 'longest:N' or 'sample:N:SEED'"
    )


@functools.cache
def _threads(count: int, _process: int) -> ThreadPoolExecutor:
    """Of one process: a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(count, thread_name_prefix="grading")


def _sandbox(count: int, tier: str, url: str | None) -> Sandbox | RemoteSandbox:
    with _lock:  # two first calls at once would each make one
        return _shared_sandbox(tier, count, url)


_shared_sandbox = functools.cache(sandbox_of)
