"""When each process of an emulated run emulated what, in real time.

What the driver waited for beyond that is the control plane's own.

Invariant: an entry is one line, written at once, so a run that is killed has all that ended.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "emulated-"
# What is emulated, by pool.
TRAINER_KINDS = ("update", "log_prob")
ROLLOUT_KINDS = ("sampling",)
REWARD_KINDS = ("reward",)
WEIGHT_KINDS = ("publish", "load", "switch")


@dataclass(frozen=True)
class Entry:
    """Something that was emulated.

    Attributes:
        kind: one of the kinds above.
        lane: who.
        start, end: seconds since the epoch.
    """

    kind: str
    lane: str
    start: float
    end: float


class Journal:
    """The entries of one process.

    Args:
        folder: of the run's journals; made if it is missing.
        role: of the process.
    """

    def __init__(self, folder: Path, role: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{PREFIX}{role}-{os.getpid()}.jsonl"

    def add(self, kind: str, lane: str, start: float, end: float) -> None:
        """Append an entry."""
        with open(self._path, "a") as file:
            file.write(json.dumps([kind, lane, start, end]) + "\n")

    @contextmanager
    def record(self, kind: str, lane: str) -> Iterator[None]:
        """Record a block."""
        start = time.time()
        try:
            yield
        finally:
            self.add(kind, lane, start, time.time())


def read_journal(folder: Path) -> list[Entry]:
    """All entries of a run, in no order; a half-written last line is left out."""
    entries = []
    for path in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            entries.append(Entry(*json.loads(line)))
    return entries
