"""What a task is: its problems, how they are asked and graded, and what others have published for
it.

Invariants:
* A task is data: a module of :mod:`verl_pipeline.evaluation.tasks` (or any other) with a
  :class:`Task` named TASK.
* What a model is shown is in :attr:`Item.messages`; hidden tests and answers never are.
* A row that cannot be read is listed, not left out in silence.
"""

import collections
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from verl_pipeline.evaluation.data import BadData, Finder
from verl_pipeline.grading import Problem


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn.

    Attributes:
        n: samples a problem.
        temperature, top_p, top_k: as in vLLM; ``top_k`` -1 is all.
        max_tokens: longest response.
        seed: of the whole evaluation; each sample's own is derived from it, the problem and the
            sample's number.
    """

    n: int = 1
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = -1
    max_tokens: int = 32768
    seed: int = 0

    def __post_init__(self):
        if not all(map(math.isfinite, (self.temperature, self.top_p))) or self.top_k < -1:
            raise ValueError(
                "sampling.temperature and top_p must be numbers, sampling.top_k at least -1"
            )
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(
                f"sampling.n and sampling.max_tokens must be at least 1, not {self.n}, "
                f"{self.max_tokens}"
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "sampling.temperature must be at least 0 and sampling.top_p in (0, 1], not "
                f"{self.temperature}, {self.top_p}"
            )
        if self.temperature == 0 and self.n > 1:
            raise ValueError(
                "sampling.temperature=0 is greedy: every sample would be the same; set sampling.n=1"
            )

    def seed_of(self, problem: str, sample: int) -> int:
        """Seed of one sample, below 2**31."""
        digest = hashlib.sha256(f"{self.seed}\0{problem}\0{sample}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 1


Message = Mapping[str, str]


def asked(text: str) -> tuple[Message, ...]:
    """A conversation of one message, the user's."""
    return ({"role": "user", "content": text},)


@dataclass(frozen=True)
class Item:
    """One problem of a task: ``problem`` for programs, ``answer`` for mathematics.

    Attributes:
        id: unique within the task, the same for every version of the data that has the problem.
        messages: the conversation, as chat templates take it.
        prefill: how the assistant's message begins, if the style is ``prefill``; part of the
            response.
        canonical: a response that is right, where the data has one.
        tags: by which scores are broken down, like difficulty and month.
    """

    id: str
    messages: tuple[Message, ...]
    problem: Problem | None = None
    answer: str | None = None
    prefill: str = ""
    canonical: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A result that somebody else has published for this task; ``value`` in percent, or a rating."""

    model: str
    value: float
    measure: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Loaded:
    """The problems of a task as found here.

    Attributes:
        origin: files, or a repository of the hub.
        bad_rows: rows that are no problem, and why.
        notes: what limits what a score on them says.

    Raises:
        BadData: no items, or two of one id.
    """

    items: list[Item]
    origin: str
    bad_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        if not self.items:
            raise BadData(f"{self.origin}: no problem")
        twice = [
            name
            for name, count in collections.Counter(item.id for item in self.items).items()
            if count > 1
        ]
        if twice:
            raise BadData(f"{self.origin}: several problems have one id: {', '.join(twice[:3])}")

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what is asked and of what it is graded against."""
        whole = hashlib.sha256()
        for item in self.items:
            graded = (item.id, item.messages, item.prefill, item.problem, item.answer)
            whole.update(repr(graded).encode("utf-8", "replace"))
        return whole.hexdigest()


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        load: finds the data with a :class:`Finder` and makes items; takes the task's options by
            keyword.
        options: names and defaults of those.
        split: ``test``: scores of it are reported, checkpoints are not chosen on it;
            ``validation``: they may be.
        rate: a rating from (problem, rewards of its samples), where the task has one; raises
            DataNotFound.
    """

    name: str
    title: str
    load: Callable[..., Loaded]
    sampling: Sampling
    options: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["test", "validation"] = "test"
    published: tuple[Published, ...] = ()
    rate: Callable[[Finder, Mapping[str, list[float]]], dict[str, Any]] | None = None
