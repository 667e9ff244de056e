"""Settings, limits and outcome of one run of a program.

Invariant: an outcome does not say whether an answer is right; a sandbox knows no expected output.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunLimits:
    """Limits of one run; each run of a program gets all of them anew.

    Attributes:
        cpu_s: CPU seconds of all processes together.
        memory_bytes: limit of resident memory of all processes together, and of the address space
            of each process (in addition to what the warm interpreter has mapped).
        output_bytes: size of each file that the program writes, including standard output.
        pauses_s: seconds beyond ``cpu_s`` in which it may neither compute nor wait for a CPU.
    """

    cpu_s: float = 12.0
    memory_bytes: int = 4 << 30
    output_bytes: int = 64 << 20
    pauses_s: float = 3.0

    @property
    def idle_s(self) -> float:
        """Limit of idle time in seconds: the CPU limit plus the pauses.

        A program is idle while it neither computes nor waits for a CPU.
        """
        return self.cpu_s + self.pauses_s

    @property
    def wall_s(self) -> float:
        """Seconds after which a run is given up without a verdict: the machine was too busy."""
        return self.pauses_s + 10.0 * self.cpu_s + 60.0


@dataclass(frozen=True)
class AssertRun:
    """What a program and the tests that call it need to know of each other.

    Attributes:
        names: names of the program that the tests use.
        records: names of classes of the prelude, whose objects cross as their attributes.
        objects: whether functions may return objects of the program's own classes.
        max_bytes: of a message between the two processes.
    """

    names: tuple[str, ...]
    records: tuple[str, ...]
    objects: bool
    max_bytes: int


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        exit_code: exit code; for a signal, its negative number.
        exceeded_limit: ``cpu``, ``wall`` (idle for too long), ``memory``, ``output``, or None.
        stdout: whole standard output, at most ``RunLimits.output_bytes``.
        stderr: the last 4 KiB of standard error, for people.
        result: of calls: one line per returned value, encoded by
            :func:`verl_pipeline.sandbox.inside.value_codec.encode_value`.
        cpu_s, wall_s: seconds; CPU time includes all processes, even killed ones.
        memory_bytes: largest resident size of a process, including the warm interpreter's share.
    """

    exit_code: int
    exceeded_limit: Literal["cpu", "wall", "memory", "output"] | None
    stdout: bytes
    stderr: str
    result: bytes
    cpu_s: float
    wall_s: float
    memory_bytes: int


class SandboxError(RuntimeError):
    """The sandbox failed; this says nothing about the program.

    Attributes:
        problem: what failed.
        fix: what to do about it; may be empty.
    """

    def __init__(self, problem: str, fix: str = ""):
        super().__init__(f"{problem}; {fix}" if fix else problem)
        self.problem, self.fix = problem, fix
