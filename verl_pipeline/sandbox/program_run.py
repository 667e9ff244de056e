"""A program loaded on a worker, and its runs.

Invariant: what a program wrote is read only after all its processes have ended.
"""

import contextlib
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from verl_pipeline.sandbox import channels
from verl_pipeline.sandbox.run_outcome import AssertRun, RunLimits, RunOutcome

if TYPE_CHECKING:  # the worker imports this module
    from verl_pipeline.sandbox.sandbox_worker import SandboxWorker

# Added to a run's longest wall-clock time: on a busy machine the supervisor needs time to end it.
RUN_GRACE_S = 30.0
_STDERR_TAIL_BYTES = 4096


class SandboxedProgram:
    """A program on a worker; each run starts it anew, with an empty scratch folder."""

    def __init__(self, worker: "SandboxWorker", control: socket.socket, source: int):
        """``control`` leads to the program's supervisor; ``source`` is a descriptor."""
        self.worker, self.control, self.source = worker, control, source

    def run(self, stdin: bytes, limits: RunLimits) -> RunOutcome:
        """Run it as ``python3 solution.py < stdin``."""
        return self._run_to_end({"kind": "stdin"}, limits, stdin)

    def call_function(
        self, entry_point: str, arguments: Sequence[str], limits: RunLimits
    ) -> RunOutcome:
        """Call a function, or a method of ``Solution``, with each of ``arguments`` in one process.

        ``arguments`` are encoded sequences. ``limits`` apply to all calls together.
        ``RunOutcome.result`` has one line for each call that returned.
        """
        request = {"kind": "call", "entry_point": entry_point}
        with channels.open_memory_file() as result:
            return self._run_to_end(request, limits, "\n".join(arguments).encode(), result)

    def start_serving(
        self, channel: socket.socket, tests: AssertRun, limits: RunLimits, clock: int
    ) -> "ProgramRun":
        """Start a run in which the program answers calls that arrive on ``channel``.

        Only the time on ``clock`` (:mod:`.inside.answer_clock`) counts as its idle and wall time.
        """
        request = {"kind": "serve", **asdict(tests)}
        return ProgramRun(self, request, limits, b"", channel.fileno(), clock)

    def run_asserts(
        self, channel: socket.socket, tests: AssertRun, limits: RunLimits, clock: int
    ) -> RunOutcome:
        """Run it as trusted tests whose calls of the program are sent over ``channel``.

        The time on ``clock``, in which they wait for answers, does not count as their idle time.
        """
        request = {"kind": "asserts", **asdict(tests)}
        return self._run_to_end(request, limits, b"", channel.fileno(), clock)

    def run_pytest(
        self,
        star_names: tuple[str, ...],
        collected: tuple[tuple[str, int], ...],
        channel: socket.socket,
        tests: AssertRun,
        limits: RunLimits,
        clock: int,
    ) -> RunOutcome:
        """Run it as a trusted pytest file whose module ``solution`` is reached over ``channel``.

        ``collected`` are the tests that pytest must find, with their numbers of cases; ``clock`` is
        as in :meth:`run_asserts`.
        """
        request = {"kind": "pytest", **asdict(tests)}
        # As standard input, because a request is one packet of limited size.
        names = {"star_names": star_names, "collected": dict(collected)}
        stdin = json.dumps(names).encode()
        return self._run_to_end(request, limits, stdin, channel.fileno(), clock)

    def _run_to_end(
        self, request: dict[str, Any], limits: RunLimits, stdin: bytes, *extras: int
    ) -> RunOutcome:
        with ProgramRun(self, request, limits, stdin, *extras) as run:
            return run.wait_for_outcome()


class ProgramRun:
    """A run that has been started.

    Args:
        extras: further descriptors: the file for results; or a channel and a clock.
    """

    def __init__(
        self,
        program: SandboxedProgram,
        request: dict[str, Any],
        limits: RunLimits,
        stdin: bytes,
        *extras: int,
    ):
        self._program, self._limits = program, limits
        self._result = extras[0] if request["kind"] == "call" else None
        # Two runs that take turns have their own limits of time, one after the other.
        self._runs = max(1, len(extras))
        worker = program.worker
        worker.cgroups.set_memory_limit(worker.loaded_programs * limits.memory_bytes)
        request = {
            **request,
            "cpu_s": limits.cpu_s,
            "idle_s": limits.idle_s,
            "wall_s": limits.wall_s,
            "memory": limits.memory_bytes,
            "output": limits.output_bytes,
        }
        self._files = contextlib.ExitStack()
        streams = [
            self._files.enter_context(channels.open_memory_file(content))
            for content in (stdin, None, None)
        ]
        self._stdout, self._stderr = streams[1:]
        descriptors = [program.source, *streams, *extras]
        try:
            socket.send_fds(program.control, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            self._files.close()
            raise worker.record_failure("run a program", error) from error

    def wait_for_outcome(self) -> RunOutcome:
        """Wait for the end of the run.

        Raises:
            SandboxError: the worker failed.
        """
        limits = self._limits
        end = self._program.worker.receive_answer(
            self._program.control, self._runs * limits.wall_s + RUN_GRACE_S, "run a program"
        )
        stdout = channels.read_file(self._stdout)
        exceeded_limit = end["why"]
        if (
            exceeded_limit is None
            and max(map(channels.get_file_size, (self._stdout, self._stderr)))
            >= limits.output_bytes
        ):
            exceeded_limit = "output"
        stderr = channels.read_file(self._stderr, _STDERR_TAIL_BYTES).decode(errors="replace")
        # The limit of address space shows as a MemoryError: it is in the last line of a traceback.
        if (
            exceeded_limit is None
            and end["exit"] != 0
            and "MemoryError" in stderr.rpartition("\n")[0].rpartition("\n")[2]
        ):
            exceeded_limit = "memory"
        return RunOutcome(
            exit_code=end["exit"],
            exceeded_limit=exceeded_limit,
            stdout=stdout,
            stderr=stderr,
            result=b"" if self._result is None else channels.read_file(self._result),
            cpu_s=end["cpu_s"],
            wall_s=end["wall_s"],
            memory_bytes=end["memory"],
        )

    def __enter__(self) -> "ProgramRun":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._files.close()
