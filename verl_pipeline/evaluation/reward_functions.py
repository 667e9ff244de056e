"""A training's reward functions as graders: each call in a process of its own, with a deadline.

Invariants:
* A function that raises, hangs, ends its process or returns no finite number gives no reward: the
  sample is ungraded, never wrong. A hanging process is killed.
* A function that cannot be loaded, or cannot score any response to a source of its data, is refused
  before a model loads.
* No process outlives this one.
"""

import contextlib
import functools
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.processes import signal_on_hangup
from verl_pipeline.verl_adapter.rewards.scored_response import ScoredResponse, UngradedResponse

# As many at a time as in a training: verl's default of reward.num_workers.
MAX_PROCESSES = 8
# Seconds for a process to import verl and the function.
START_DEADLINE_S = 600.0
_SIGNATURE = (
    "verl calls it with data_source, solution_str, ground_truth, extra_info and reward_kwargs, and "
    "takes a number, or a dict with 'score'"
)


@dataclass(frozen=True)
class RewardFunction:
    """A reward function, named as in verl's configuration.

    Attributes:
        path: file, or ``pkg://module``; None: verl's default scorer.
        name, kwargs: ``name`` and ``reward_kwargs`` of ``reward.custom_reward_function``.
        digest: SHA-256 of the function's file, if it has one: verdicts of another version are not
            mixed with its own.
    """

    path: str | None = None
    name: str = "compute_score"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None

    def __str__(self) -> str:
        return "verl" if self.path is None else f"{self.path}:{self.name}"


@dataclass(frozen=True)
class RewardCall:
    """The arguments, besides the response, with which verl calls a reward function."""

    function: RewardFunction
    data_source: str
    ground_truth: Any
    extra_info: Mapping[str, Any]


class UnloadableFunction(UngradedResponse):
    """There is no such reward function; the message says why."""


class RewardProcesses:
    """Scores responses by one function, each in a process; thread-safe.

    Args:
        workers: processes at a time, at most :data:`MAX_PROCESSES`.
        deadline_s: longest time for one response, in seconds.
    """

    def __init__(self, function: RewardFunction, workers: int, deadline_s: float):
        self._function = function
        self._deadline_s = deadline_s
        self._slots = threading.BoundedSemaphore(min(workers, MAX_PROCESSES))
        self._lock = threading.Lock()
        self._idle: list[_RewardProcess] = []
        self._all: set[_RewardProcess] = set()
        self._is_closed = False

    def score_response(self, call: RewardCall, response: str) -> ScoredResponse:
        """Return the reward of a response.

        Raises:
            UngradedResponse: there is none; the message says why.
            UnloadableFunction: its process does not start, or has no such function.
        """
        request = (call.data_source, response, call.ground_truth, call.extra_info)
        with self._slots:
            process = self._take_process()
            try:
                answer = process.ask(request, self._deadline_s)
            except TimeoutError as error:
                self._discard(process)
                reason = f"no reward within grader.reward_s={self._deadline_s:g}"
                raise UngradedResponse(reason) from error
            except (EOFError, OSError) as error:
                self._discard(process)
                raise UngradedResponse("the reward function ended its process") from error
            self._idle.append(process)
        if isinstance(answer, ScoredResponse):
            return answer
        raise UngradedResponse(answer)

    def _take_process(self) -> "_RewardProcess":
        with self._lock:
            if self._is_closed:
                raise UngradedResponse("the evaluation was ended")
            if self._idle:
                return self._idle.pop()
            process = _RewardProcess(self._function)
            self._all.add(process)
        try:
            process.wait_until_ready()
        except UnloadableFunction:
            self._discard(process)
            raise
        return process

    def _discard(self, process: "_RewardProcess") -> None:
        with self._lock:
            self._all.discard(process)
        process.end()

    def close(self) -> None:
        """End all processes; calls in progress raise UngradedResponse."""
        with self._lock:
            self._is_closed = True
            processes, self._all = self._all, set()
            self._idle.clear()
        for process in processes:
            process.end()


def check_rewards(task: str, calls: Iterable[RewardCall], deadline_s: float) -> None:
    """Score a harmless response to one problem of each data source.

    Two responses are tried, the expected answer and none, since a function may raise for one.

    Raises:
        BadSetting: the function cannot be loaded, or it gives neither response a reward.
    """
    first_calls: dict[str, dict[str, RewardCall]] = {}
    for call in calls:
        first_calls.setdefault(str(call.function), {}).setdefault(call.data_source, call)
    for by_source in first_calls.values():
        function = next(iter(by_source.values())).function
        with contextlib.closing(RewardProcesses(function, 1, deadline_s)) as processes:
            for call in by_source.values():
                _check_call(task, processes, call)


def _check_call(task: str, processes: RewardProcesses, call: RewardCall) -> None:
    setting = f"options.{task}.grader={call.function}"
    reasons = []
    for response in (str(call.ground_truth), ""):
        try:
            processes.score_response(call, response)
            return
        except UnloadableFunction as error:
            raise BadSetting(
                f"{setting}: {error}; name FILE.py:FUNCTION or pkg://MODULE:FUNCTION"
            ) from error
        except UngradedResponse as error:
            reasons.append(str(error))
    raise BadSetting(
        f"{setting}: no reward for data_source={call.data_source!r}: {reasons[0]}; correct the "
        f"function: {_SIGNATURE}"
    )


@functools.cache
def _get_context() -> multiprocessing.context.ForkServerContext:
    """Return what starts the processes: forks of one that has imported verl already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["verl_pipeline.verl_adapter.rewards.training_reward"])
    return context


class _RewardProcess:
    """A process that loads one function and calls it."""

    def __init__(self, function: RewardFunction):
        context = _get_context()
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_serve_rewards, args=(child, function), daemon=True)
        self._process.start()
        child.close()

    def wait_until_ready(self) -> None:
        """Wait until the process has loaded the function.

        Raises:
            UnloadableFunction: it cannot, or it does not start.
        """
        try:
            cause = self._receive(START_DEADLINE_S)
        except (EOFError, OSError) as error:
            cause = f"its process did not start ({type(error).__name__})"
        if cause:
            raise UnloadableFunction(f"the reward function cannot be loaded: {cause}")

    def ask(self, request: tuple, deadline_s: float) -> ScoredResponse | str:
        """Return the score, or why there is none.

        Raises:
            TimeoutError: the deadline passed.
            EOFError, OSError: the process ended.
        """
        self._connection.send(request)
        return self._receive(deadline_s)

    def _receive(self, deadline_s: float) -> Any:
        if not self._connection.poll(deadline_s):
            raise TimeoutError
        return self._connection.recv()

    def end(self) -> None:
        """Kill the process; a call in progress gets EOFError."""
        self._process.kill()
        self._process.join()


def _serve_rewards(connection: Connection, function: RewardFunction) -> None:
    """Run in a process: report why the function cannot be loaded, or "", then answer requests."""
    # The evaluation; the parent is multiprocessing's server, which lives as long as its forks.
    evaluation = multiprocessing.parent_process()
    assert evaluation is not None
    signal_on_hangup(evaluation.sentinel, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What a function prints belongs to no result.
    os.dup2(2, 1)
    # Imported here: it imports verl, which takes seconds.
    from verl_pipeline.verl_adapter.rewards.training_reward import TrainingReward, describe_error

    try:
        reward = TrainingReward(function.path, function.name, function.kwargs)
    except BaseException as error:  # a user's module may raise anything, SystemExit included
        connection.send(describe_error(error))
        return
    connection.send("")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            answer: ScoredResponse | str = reward.score_response(*request)
        except UngradedResponse as error:
            answer = str(error)
        connection.send(answer)
