"""A problem on its way through the stages, and what a stage decides about it.

Invariants:
* Records are written once, by ingest; later stages keep ids and what they add, so that tests are
  not copied.
* A stage decides about every record it is given, in the order it is given them, and says why it
  removes one.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.grading import Problem
from verl_pipeline.grading.readers import READERS

Message = Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """A problem.

    Attributes:
        id: unique in all sources: ``source/id there``.
        source: key of :data:`recipes.deepcoder.data.data_sources.SOURCES`.
        reader: key of :data:`verl_pipeline.grading.readers.READERS`.
        question: the source's text.
        tests: what ``reader`` takes, as text.
        test_count: tests, or asserts where tests are Python.
        calls: names that the tests call; none: the program reads standard input.
        origin: file and number of the row, from 1.
        solutions: official ones, programs.
        starter: code that the solution starts from.
        language: as the source says, or None.
        date: of the contest, ISO, or None.
        difficulty: in the source's words.
        multi_answer: several answers are right; so the source says, or so its solutions show.
        prompt: conversation; the source's own, or made by the stage ``length``.
        prompt_tokens: with the chat template.
        verified: an official solution passed all tests.
        pass_rate: measured, or None.
        split: ``train`` or ``heldout``.
    """

    id: str
    source: str
    reader: str
    question: str
    tests: str
    test_count: int
    calls: tuple[str, ...]
    origin: str
    solutions: tuple[str, ...] = ()
    starter: str = ""
    language: str | None = None
    date: str | None = None
    difficulty: str = ""
    multi_answer: bool = False
    prompt: tuple[Message, ...] = ()
    prompt_tokens: int = 0
    verified: bool = False
    pass_rate: float | None = None
    split: str = "train"

    def problem(self) -> Problem:
        """Its tests, read."""
        return READERS[self.reader](self.tests, name=self.id, source=self.reader)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Record":
        """Of a row of JSON; its lists become tuples."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        return cls(**fields)


@dataclass(frozen=True)
class Kept:
    """A record that stays, and the fields that the stage sets."""

    id: str
    source: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Removed:
    """A record that goes.

    Attributes:
        id: of the record; of a row that could not be read, file and number.
        reason: in a few words, the same for all rows removed for it.
        detail: in the words of this row.
        twin: id of what it is a twin of.
        similarity: to the twin, from 0 to 1.
        passing: of this machine, not of the row: the next run tries again.
    """

    id: str
    source: str
    reason: str
    detail: str = ""
    twin: str | None = None
    similarity: float | None = None
    passing: bool = False


Decision = Kept | Removed


@dataclass(frozen=True)
class Records:
    """The records that are left, read from ingest's files each time they are iterated over.

    Attributes:
        files: of ingest, in the order of the sources.
        kept: ids that are left, and the fields that stages have set.
    """

    files: Sequence[Path]
    kept: Mapping[str, Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Record]:
        for path in self.files:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    if (more := self.kept.get(row["id"])) is not None:
                        yield Record.from_row({**row, **more})
