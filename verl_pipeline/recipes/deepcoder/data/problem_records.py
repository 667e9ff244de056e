"""A problem on its way through the stages, and what a stage decides about it.

Invariants:
* Ingestion writes each record once. Later stages store only ids and the fields they set, so that
  tests, which can be megabytes, are not copied.
* A stage decides about every record, in the order of the records, and gives a reason for every
  removal.
* The JSON names of all fields are fixed: the digests of cached stages cover them.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.grading import Problem
from verl_pipeline.grading.readers import read_problem

Message = Mapping[str, str]

# Attributes of RemovedRow that have another name in removed.jsonl.
_JSON_NAMES = {"duplicate_of": "twin", "is_transient": "passing"}


@dataclass(frozen=True)
class ProblemRecord:
    """A problem.

    Attributes:
        id: unique over all data sources: ``<source>/<id within the source>``.
        source: key of :data:`verl_pipeline.recipes.deepcoder.data.data_sources.SOURCES`.
        reader: key of :data:`verl_pipeline.grading.readers.READERS`.
        question: the problem statement, as the source has it.
        tests: the tests as text, in the format that ``reader`` reads.
        test_count: number of tests, or of assert statements if the tests are Python code.
        calls: names that the tests call; empty if the program reads standard input.
        origin: file name and row number, counted from 1.
        solutions: official solutions, as programs.
        starter: code that every solution starts with.
        language: programming language, if the source names one.
        date: ISO date of the contest, if known.
        difficulty: in the words of the source.
        multi_answer: several answers are right, according to the source or to its solutions.
        prompt: the conversation, from the source or built by the stage ``length``.
        prompt_tokens: length of the prompt in tokens, chat template included.
        verified: an official solution passed all tests.
        pass_rate: measured or given pass rate, if any.
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

    def read_problem(self) -> Problem:
        """Read the tests into a problem that can be graded."""
        return read_problem(self.reader, self.tests, name=self.id)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ProblemRecord":
        """Build a record from a JSON row; lists become tuples."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        return cls(**fields)


@dataclass(frozen=True)
class KeptRow:
    """A record that stays, and the fields that the stage sets."""

    id: str
    source: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class RemovedRow:
    """A row that a stage removes.

    Attributes:
        id: id of the record, or file name and row number if the row could not be read.
        reason: a few words, the same for all rows that are removed for this reason.
        detail: what is specific to this row.
        duplicate_of: id of the problem that this row duplicates.
        similarity: similarity to that problem, from 0 to 1.
        is_transient: this machine failed, not the row: the next run tries the row again.
    """

    id: str
    source: str
    reason: str
    detail: str = ""
    duplicate_of: str | None = None
    similarity: float | None = None
    is_transient: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the row as ``removed.jsonl`` stores it."""
        return {_JSON_NAMES.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def parse_json(cls, row: Mapping[str, Any]) -> "RemovedRow":
        """Build a row from what :meth:`to_json` returned."""
        attributes = {json_name: name for name, json_name in _JSON_NAMES.items()}
        return cls(**{attributes.get(key, key): value for key, value in row.items()})


Decision = KeptRow | RemovedRow


@dataclass(frozen=True)
class RecordSet:
    """The records that are left. Each iteration reads them again from the files of ingestion.

    Attributes:
        files: files that ingestion wrote, in the order of the data sources.
        fields_by_id: for each record that is left, the fields that later stages set.
    """

    files: Sequence[Path]
    fields_by_id: Mapping[str, Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.fields_by_id)

    def __iter__(self) -> Iterator[ProblemRecord]:
        for path in self.files:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    if (fields := self.fields_by_id.get(row["id"])) is not None:
                        yield ProblemRecord.from_row({**row, **fields})
