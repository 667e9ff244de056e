"""Tasks: problems, prompts, grading data and published scores of a benchmark.

Invariants:
* A task is a module with a :class:`Task` named TASK, in :mod:`verl_pipeline.evaluation.tasks` or
  anywhere else.
* The model sees only :attr:`TaskItem.messages` and the prefill, never hidden tests or answers.
* Every row that cannot be read is listed with its reason.
"""

import collections
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.data import BadData, DataFinder
from verl_pipeline.evaluation.reward_functions import RewardCall
from verl_pipeline.grading import Problem
from verl_pipeline.grading.problem import write_repr


@dataclass(frozen=True)
class SamplingParameters:
    """Sampling parameters of a task.

    Attributes:
        n: samples per problem.
        temperature, top_p, top_k: as in vLLM; ``top_k`` -1 keeps all tokens.
        max_tokens: maximum response length.
        seed: seed of the whole evaluation; the seed of a sample is derived from it, the problem's
            id and the sample's number.

    Raises:
        ValueError: a value out of range, or several samples at temperature 0.
    """

    n: int = 1
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = -1
    max_tokens: int = 32768
    seed: int = 0

    def __post_init__(self):
        # Comparisons with NaN are false.
        expectations = {
            "n": (self.n >= 1, "at least 1"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < math.inf, "a number of at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= -1, "at least -1"),
        }
        for name, (holds, expectation) in expectations.items():
            if not holds:
                raise ValueError(f"sampling.{name}={getattr(self, name)}: must be {expectation}")
        if self.temperature == 0 and self.n > 1:
            raise ValueError(
                "sampling.temperature=0 is greedy, so all samples would be equal: set sampling.n=1"
            )

    def derive_seed(self, problem: str, sample: int) -> int:
        """Return the seed of one sample, below 2**31."""
        digest = hashlib.sha256(f"{self.seed}\0{problem}\0{sample}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 1


Message = Mapping[str, str]


def make_conversation(text: str) -> tuple[Message, ...]:
    """Return a conversation of one user message."""
    return ({"role": "user", "content": text},)


@dataclass(frozen=True)
class TaskItem:
    """One problem of a task with its prompt and grading data.

    Attributes:
        id: unique within the task, and stable across versions of the data.
        messages: the conversation, in the form that chat templates expect.
        problem: tests, for a programming problem.
        answer: reference answer, for mathematics.
        reward: a training's reward function and its arguments, if it is the grader.
        prefill: beginning of the assistant's message with ``style=prefill``; part of the response.
        canonical: a correct response, if the data has one.
        tags: values by which scores are broken down, such as difficulty and month.
    """

    id: str
    messages: tuple[Message, ...]
    problem: Problem | None = None
    answer: str | None = None
    prefill: str = ""
    canonical: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    reward: RewardCall | None = None

    @property
    def grader(self) -> str:
        """``code``, ``math``, or the reward function."""
        if self.reward is not None:
            return str(self.reward.function)
        return "code" if self.problem is not None else "math"


@dataclass(frozen=True)
class PublishedResult:
    """A score that others published for the task; ``value`` is in percent, or a rating."""

    model: str
    value: float
    measure: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class TaskData:
    """The loaded problems of a task.

    Attributes:
        items: the problems; at least one.
        origin: the files, or the repository on the hub.
        bad_rows: rows that could not be read, with the reason.
        notes: limits of a score on this data; the score remains the benchmark's.
        caveats: limits for which a score is not the benchmark's, and others of a kind of their
            own (:mod:`verl_pipeline.evaluation.caveats`).

    Raises:
        BadData: no items, or two items with one id.
    """

    items: list[TaskItem]
    origin: str
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    caveats: list[Caveat] = field(default_factory=list)

    def __post_init__(self):
        if not self.items:
            raise BadData(f"{self.origin}: no problems")
        duplicates = [
            name
            for name, count in collections.Counter(item.id for item in self.items).items()
            if count > 1
        ]
        if duplicates:
            raise BadData(
                f"{self.origin}: several problems have one id: {', '.join(duplicates[:3])}"
            )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all prompts and grading data."""
        sha256 = hashlib.sha256()
        for item in self.items:
            content: tuple = (item.id, item.messages, item.prefill, item.problem, item.answer)
            if item.reward is not None:
                content += (item.reward,)
            sha256.update(write_repr(content).encode("utf-8", "replace"))
        return sha256.hexdigest()


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: name of the task and of its folder in the results.
        title: name for readers.
        load: function that finds the data with a :class:`DataFinder` and returns the problems; it
            takes the task's options as keyword arguments.
        sampling: default sampling parameters.
        options: names and defaults of the task's options.
        split: ``test``: to report scores on, not to choose checkpoints; ``validation``: for both.
        size: number of problems of the benchmark, with the default options; None: unknown.
        published: scores published by others.
        rate: function that computes a rating from the rewards by problem id, for tasks that have
            one; it raises DataNotFound if it lacks data.
    """

    name: str
    title: str
    load: Callable[..., TaskData]
    sampling: SamplingParameters
    options: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["test", "validation"] = "test"
    size: int | None = None
    published: tuple[PublishedResult, ...] = ()
    rate: Callable[[DataFinder, Mapping[str, list[float]]], dict[str, Any]] | None = None
