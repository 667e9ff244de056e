"""What an acceptance run left, and what its log says of its end."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from verl_pipeline.errors import show_line
from verl_pipeline.testing.runs import Run

# Colours, and what Ray puts before the lines of its workers.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WORKER = re.compile(r"^\(\w[^()]* pid=\d+[^()]*\) ?")
# The last line of a traceback; those before it are indented.
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:\([\w.]+\))?: \S")
_REFUSAL = "error: "
# The canary of the trainer raises it.
_WEIGHTS_ERROR = re.compile(r"^(?:[\w.]*\.)?WeightsDiffer: (.+)$")
_JOINED_RAY = re.compile(r"Connecting to existing Ray cluster at address: (\S+?)\.*$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """A run that has ended.

    Attributes:
        seconds: from its start to its end.
        is_late: whether it was ended after the deadline.
    """

    run: Run
    seconds: float
    is_late: bool = False

    @cached_property
    def lines(self) -> list[str]:
        """The lines of its log, without colours and Ray's prefixes."""
        text = _COLOUR.sub("", self.run.output)
        return [_WORKER.sub("", line) for line in text.splitlines()]

    @property
    def refusals(self) -> list[str]:
        """What the entry point refused, one line a setting."""
        return [line.removeprefix(_REFUSAL) for line in self.lines if line.startswith(_REFUSAL)]

    @property
    def cause(self) -> str:
        """The error that ended the run, in one line; its last line if there is none."""
        printed = [line for line in self.lines if line.strip()]
        found = list(self._list_errors()) or printed
        return show_line(found[-1].strip()) if found else "it printed nothing"

    @property
    def weights_error(self) -> str | None:
        """What the trainer said of weights that differ."""
        found = [match for line in self.lines if (match := _WEIGHTS_ERROR.match(line.strip()))]
        return show_line(found[-1].group(1)) if found else None

    @property
    def joined_ray(self) -> str | None:
        """The address of the Ray that ran before; None if the run started its own."""
        found = _JOINED_RAY.search(_COLOUR.sub("", self.run.output))
        return found.group(1) if found else None

    def _list_errors(self) -> Iterator[str]:
        for before, line in zip(["", *self.lines], self.lines, strict=False):
            if line.startswith(_REFUSAL):
                yield line.removeprefix(_REFUSAL)
            elif before.startswith("  ") and _EXCEPTION.match(line):
                yield line
