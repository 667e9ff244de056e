"""One entry of the table of metrics.

Invariants:
* A name may stand for several: ``<word>`` for any text, ``{a,b}`` for each of the listed ones.
* A unit says what the number counts in; a share lies between 0 and 1.
"""

import functools
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Unit = Literal[
    "s", "ms", "GiB", "MiB", "bytes", "tokens", "tokens/s", "nats", "share", "count", "number"
]
STATISTICS = "{mean,max,min}"


class Mode(StrEnum):
    """Who logs a metric."""

    PIPELINE = "one_off_pipeline"
    FILTERED = "sync_filtered"
    SYNC = "sync"
    WATCHER = "eval-watch"


TRAINERS = (Mode.PIPELINE, Mode.FILTERED, Mode.SYNC)
OURS = (Mode.PIPELINE, Mode.FILTERED)


@dataclass(frozen=True)
class Metric:
    """What a logged name, or a family of names, means.

    Attributes:
        name: see the module.
        unit: a ``number`` has no unit.
        meaning: one line.
        modes: who logs it; ``sync`` is verl's own trainer.
        ours: what is to be known in our modes, one line; empty if there is nothing.
    """

    name: str
    unit: Unit
    meaning: str
    modes: tuple[Mode, ...] = TRAINERS
    ours: str = ""

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(<[^>]+>|\{[^}]+\})", self.name)
        return re.compile("".join(map(_translate, parts)))

    def matches(self, name: str) -> bool:
        """Whether the entry describes the logged ``name``."""
        return self._pattern.fullmatch(name) is not None


def _translate(part: str) -> str:
    """A regular expression for one part of a name."""
    if part.startswith("<"):
        return ".+"
    if part.startswith("{"):
        return "(?:" + "|".join(map(re.escape, part[1:-1].split(","))) + ")"
    return re.escape(part)
