"""What is asked of a run, and how it ended.

Invariant: nothing here says whether an answer is right; a sandbox knows no expected output.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Limits:
    """Of one run; a program has them for each of its runs anew.

    Attributes:
        cpu_s: processor seconds of all its processes together.
        memory_bytes: resident, of all its processes together, and of address space, of each (beyond
            the interpreter's).
        output_bytes: of each file it writes, standard output among them.
        pauses_s: seconds beyond ``cpu_s`` in which it may neither compute nor wait for a processor.
    """

    cpu_s: float = 12.0
    memory_bytes: int = 4 << 30
    output_bytes: int = 64 << 20
    pauses_s: float = 3.0

    @property
    def idle_s(self) -> float:
        """Seconds it may neither compute nor wait for a processor: as long as it may compute, and
        its pauses.
        """
        return self.cpu_s + self.pauses_s

    @property
    def wall_s(self) -> float:
        """Seconds after which it is given up, unjudged: the machine was too busy."""
        return self.pauses_s + 10.0 * self.cpu_s + 60.0


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        exit_code: as the shell knows it; a signal's number, negative.
        exceeded: ``cpu``, ``wall`` (idle for too long), ``memory``, ``output``, or None.
        stdout: all of it, at most ``Limits.output_bytes``.
        stderr: its last 4 KiB, for people.
        result: of calls: lines, as :func:`verl_pipeline.sandbox.inside.values.encode` wrote them.
        cpu_s, wall_s: seconds; of all its processes, killed ones included.
        memory_bytes: largest resident size of one of its processes, the warm interpreter's share
            included.
    """

    exit_code: int
    exceeded: Literal["cpu", "wall", "memory", "output"] | None
    stdout: bytes
    stderr: str
    result: bytes
    cpu_s: float
    wall_s: float
    memory_bytes: int


class SandboxError(RuntimeError):
    """The sandbox failed; nothing is known about the program."""
