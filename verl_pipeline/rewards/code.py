"""Reward for code, for verl's reward loop: runs tests in the sandbox; 1 if all pass, else 0.

    reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code
    # and the other arguments of `compute_score`:
    +reward.custom_reward_function.reward_kwargs.workers=8

``reward_model.ground_truth`` has the tests as the row's source publishes them, and ``data_source``
names their reader (:data:`verl_pipeline.grading.readers.READERS`), so that DeepCoder's data sets
need no conversion. They may be text or what a parquet reader makes of structs and lists.

Invariants:
* All results have the same keys with values of the same types.
* A failure of the grader or the sandbox has the verdict ``infrastructure``, which the filter of
  that name drops; its score says nothing about the program.
* At most ``workers`` programs run at a time on a node, however many reward workers verl starts
  there.
* The event loop is never blocked: grading runs in threads, and the sandbox's own deadlines end
  each of them.
"""

import asyncio
import functools
import hashlib
import json
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from verl_pipeline.grading import GradingResult, Problem, Verdict, grade_response
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.grading.readers.row_values import read_extra_info
from verl_pipeline.grading.selection import sample_tests, select_longest_inputs
from verl_pipeline.sandbox import RemoteSandbox, Sandbox, make_sandbox

logger = logging.getLogger(__name__)

# Seconds between two attempts to get a slot of the node.
_SLOT_POLL_S = 0.01
_sandbox_lock = threading.Lock()
# When this process, not the one that it was forked from, last left a slot: time.monotonic().
_slot_ends: dict[int, float] = {}


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    *,
    source: str | None = None,
    workers: int | None = None,
    tier: str = "namespaces",
    url: str | None = None,
    memory_limit_mb: int | None = None,
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
        data_source: from verl's interface; names the reader if ``source`` does not.
        solution_str: the response, as text.
        ground_truth: the tests, as the source publishes them: as text (JSON or the ``repr`` of a
            Python value), or as dicts, lists and arrays.
        extra_info: from verl's interface, or as JSON text; its ``name`` is used in messages.
        source: name of the reader of ``ground_truth``.
        workers: number of programs at a time on this node; by default one for each CPU.
        tier: isolation, see :mod:`verl_pipeline.sandbox.launch_command`; ``remote`` for a
            SandboxFusion server.
        url: of that server, as ``reward.sandbox_fusion.url``; our trainers set ``tier``, ``url``,
            ``workers`` and ``memory_limit_mb`` from the fields of ``reward.sandbox_fusion``.
        memory_limit_mb: what that server is told, in MiB, instead of the problem's own limit.
        selection: of the tests: ``deepcoder`` (the 15 longest inputs, all for LiveCodeBench:
            section "Reward" of the DeepCoder blog post), ``all``, ``longest:N`` or
            ``sample:N:SEED``.
        partial_credit: the score is the share of tests passed before the first failure, instead of
            0.
        format_penalty: subtracted from the score of a response without a complete block of code.
        prefix: text with which the chat template begins the answer, such as ``"<think>\\n"``. verl
            passes only the text after it; without it, a response that was cut off within its
            reasoning would be graded on a draft.
        queue_s: longest time to wait for a slot on this node, in seconds, counted anew whenever
            this process has graded a response: to wait behind others is no failure.
        deadline_s: longest time for grading, in seconds from the moment a slot is free; after it
            the verdict is ``infrastructure``. The pipelined trainer derives both from
            ``deadlines.reward_s``, after which it would not take the verdict any more.

    Returns:
        ``score`` and ``acc`` (1.0 if all tests pass), ``verdict``, ``reason``, ``tier``, and
        ``figures``, a JSON object as text (:func:`verl_pipeline.trainer.batch.read_figures` says
        why): seconds ``queue_s``, ``grading_s`` and ``cpu_s``; ``busy``: programs at that moment in
        this process; ``calibration``: CPU time of a fixed Python loop here, as a multiple of that
        on the machine on which limits were tried (0 if nothing ran).

    Raises:
        ValueError: ``data_source`` has no reader, the reader cannot read the tests, or there is no
            such ``selection``. The trainer counts the trajectory as an infrastructure failure.
    """
    name = str(read_extra_info(extra_info).get("name", "?"))
    problem = _read_problem(source or data_source, _freeze(ground_truth), selection, name)
    worker_count = workers or len(os.sched_getaffinity(0))
    begin = time.monotonic()
    sandbox = _get_sandbox(worker_count, tier, url, memory_limit_mb)
    loop = asyncio.get_running_loop()
    response = prefix + solution_str
    has_slot = asyncio.Event()

    def announce_slot() -> None:
        loop.call_soon_threadsafe(has_slot.set)

    grading = loop.run_in_executor(
        _get_thread_pool(worker_count, os.getpid()),
        _grade_in_slot,
        problem,
        response,
        sandbox,
        queue_s,
        begin,
        announce_slot,
    )
    # If there is no slot, the grading ends without one.
    grading.add_done_callback(lambda _grading: has_slot.set())
    try:
        await has_slot.wait()
        result, waiting_s = await asyncio.wait_for(grading, deadline_s)
    except TimeoutError as error:
        reason = str(error) or f"not graded within {deadline_s:g} s"
        result = GradingResult(Verdict.INFRASTRUCTURE, reason, tier=tier)
        waiting_s = time.monotonic() - begin
    if result.verdict is Verdict.INFRASTRUCTURE:
        logger.error("%s %s could not be graded: %s", data_source, problem.name, result.reason)
    score = result.reward or 0.0
    if partial_credit and not score and result.total:
        score = result.passed / result.total
    if result.verdict is Verdict.NO_CODE:
        score -= format_penalty
    figures = {
        "queue_s": waiting_s,
        "grading_s": time.monotonic() - begin - waiting_s,
        "cpu_s": result.cpu_s,
        "busy": sandbox.busy_workers,
        "calibration": sandbox.calibration or 0.0,
    }
    return {
        "score": score,
        "acc": result.reward or 0.0,
        "grader": "code",
        "verdict": str(result.verdict),
        "reason": result.reason,
        "tier": result.tier or tier,
        "figures": json.dumps(figures),
    }


def _grade_in_slot(
    problem: Problem,
    response: str,
    sandbox: Sandbox | RemoteSandbox,
    queue_s: float,
    begin: float,
    announce_slot: Callable[[], None],
) -> tuple[GradingResult, float]:
    """Return the result and the seconds since ``begin`` at which grading started."""
    with _hold_node_slot(sandbox.workers, queue_s, begin):
        announce_slot()
        waiting_s = time.monotonic() - begin
        return grade_response(problem, response, sandbox), waiting_s


@contextmanager
def _hold_node_slot(slots: int, timeout_s: float, begin: float) -> Iterator[None]:
    """Hold one of ``slots``, which all processes of this user and network namespace share.

    A slot is an abstract Unix address: it is no file, and it is free again the moment its holder
    ends, even if the holder is killed.

    Raises:
        TimeoutError: for ``timeout_s``, none was free and nobody of this process has left one; the
            wait began at ``begin``.
    """
    # Threads start at different slots, so that they rarely try the same one.
    first = threading.get_ident() % slots
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        while True:
            for slot in range(slots):
                try:
                    holder.bind(f"\0verl_pipeline_grading_{os.getuid()}_{(first + slot) % slots}")
                except OSError:
                    continue
                try:
                    yield
                finally:
                    _slot_ends[os.getpid()] = time.monotonic()
                return
            last_sign = max(begin, _slot_ends.get(os.getpid(), begin))
            if time.monotonic() > last_sign + timeout_s:
                raise TimeoutError(
                    f"none of this node's {slots} slots for grading was free for {timeout_s:g} s"
                )
            time.sleep(_SLOT_POLL_S)


@dataclass(frozen=True)
class _FrozenTests:
    """Tests that are not text, as a key of a cache: equal if their digests are."""

    digest: bytes
    value: Any = field(compare=False)


def _freeze(ground_truth: Any) -> str | _FrozenTests:
    """Return text unchanged, and anything else with a digest by which it can be cached."""
    if type(ground_truth) is str:
        return ground_truth
    try:
        return _FrozenTests(hashlib.sha256(pickle.dumps(ground_truth)).digest(), ground_truth)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"ground_truth is a {type(ground_truth).__name__}: {error}") from error


@functools.lru_cache(maxsize=256)
def _read_problem(
    source: str, ground_truth: str | _FrozenTests, selection: str, name: str
) -> Problem:
    """Read a problem; cached, because all responses of a group have the same one."""
    tests = ground_truth if isinstance(ground_truth, str) else ground_truth.value
    try:
        problem = read_problem(source, tests, name=name)
    except BadRow as error:
        raise ValueError(f"ground_truth of {source} {name}: {error}") from error
    return _select_tests(problem, selection)


def _select_tests(problem: Problem, selection: str) -> Problem:
    kind, *numbers = selection.split(":")
    match kind, numbers:
        case "all", []:
            return problem
        case "deepcoder", []:
            return problem if problem.source == "livecodebench" else select_longest_inputs(problem)
        case "longest", [count] if count.isdigit():
            return select_longest_inputs(problem, int(count))
        case "sample", [count, seed] if count.isdigit() and seed.isdigit():
            return sample_tests(problem, int(count), int(seed))
    raise ValueError(
        f"selection={selection!r}: must be 'deepcoder', 'all', 'longest:N' or 'sample:N:SEED'"
    )


@functools.cache
def _get_thread_pool(count: int, _pid: int) -> ThreadPoolExecutor:
    """Return the threads of this process: a forked child has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="grading")


def _get_sandbox(
    count: int, tier: str, url: str | None, memory_limit_mb: int | None
) -> Sandbox | RemoteSandbox:
    with _sandbox_lock:  # two first calls at once would each make one
        return _make_shared_sandbox(tier, count, url, memory_limit_mb)


_make_shared_sandbox = functools.cache(make_sandbox)
