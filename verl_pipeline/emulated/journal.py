"""When each process of an emulated run emulated what.

Invariant: an entry is one line, written at once, so a run that is killed has all that ended.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

PREFIX = "emulated-"


@dataclass(frozen=True)
class Entry:
    """Something that was emulated.

    Attributes:
        kind: "sampling", "reward", "log_prob", "update", "publish", "load" or "switch".
        lane: who.
        start, end: emulated seconds.
        real: real seconds (monotonic) when it was written, at its end.
        step: number of the update that it belongs to, from 1; 0: none.
    """

    kind: str
    lane: str
    start: float
    end: float
    real: float
    step: int = 0


class Journal:
    """The entries of one process.

    Args:
        folder: of the run's journals; made if it is missing.
        role: of the process.
    """

    def __init__(self, folder: Path, role: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{PREFIX}{role}-{os.getpid()}.jsonl"

    def add(self, kind: str, lane: str, start: float, end: float, step: int = 0) -> None:
        """Append an entry that ends now."""
        with open(self._path, "a") as file:
            file.write(json.dumps([kind, lane, start, end, time.monotonic(), step]) + "\n")


def read_journal(folder: Path) -> list[Entry]:
    """All entries of a run, in no order; a half-written last line is left out."""
    entries = []
    for path in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            entries.append(Entry(*json.loads(line)))
    return entries
