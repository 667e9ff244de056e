"""The judge's side of one warm interpreter.

Invariants:
* A worker runs one program at a time (and, in a jail beside it, the tests that ask it); what it
  leaves is gone before the next (:mod:`.inside.supervisor`).
* Every answer is awaited with a deadline beyond the program's own limits; when one passes, or the
  worker dies, that is a :class:`SandboxError`, and the worker is broken: it is ended and never used
  again.
* What a program wrote is read once all its processes have ended.
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from verl_pipeline.sandbox import channels
from verl_pipeline.sandbox.cgroup import Groups
from verl_pipeline.sandbox.launch import PROCESSES, Tier, launch
from verl_pipeline.sandbox.outcome import Limits, Outcome, SandboxError

logger = logging.getLogger(__name__)

START_S = 120.0
# Beyond a run's longest wall-clock time: for the supervisor to end it, on a busy machine.
GRACE_S = 30.0
END_S = 10.0
# For a process of the jail to be reaped by its parent, which may be stopped, before that is killed
# too.
REAP_S = 1.0
# CPU seconds of the jail's fixed loop (:func:`.inside.warm.loop_seconds`) where the limits of data
# sets were tried: the fastest of 400 on an Intel Xeon at 2.5 GHz, CPython 3.11.
REFERENCE_LOOP_S = 0.0076
# Of bubblewrap, the interpreter and two supervisors, with room.
OWN_PROCESSES = 32
_PACKET = 1 << 16
_STDERR_BYTES = 4096


class Worker:
    """A warm interpreter in its jail; not for use by two threads at once.

    Raises:
        SandboxError: it does not start; the end of its output is in the message.
    """

    def __init__(self, tier: Tier = "namespaces"):
        self.tier = tier
        self._failed_once = False
        self._scratch = (
            tempfile.TemporaryDirectory(prefix="verl_pipeline_scratch_", ignore_cleanup_errors=True)
            if tier == "rlimits"
            else None
        )
        self.groups = Groups(2 * PROCESSES + OWN_PROCESSES)
        self._log = tempfile.TemporaryFile()
        ours, theirs = channels.socket_pair()
        with theirs:
            started = launch(tier, self._scratch.name if self._scratch else None)
            words = [str(theirs.fileno()), json.dumps(started.settings)]
            self._process = subprocess.Popen(
                self.groups.joining([*started.command, *words]),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=started.environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )
        self._channel = ours
        self.programs = 0  # now: one, or one and the tests that ask it
        self._supervisors: list[socket.socket] = []  # those that have nothing to do
        self._inside: list[psutil.Process] = []
        try:
            self.description = self._receive(ours, START_S, "start")
            self._inside = psutil.Process(self._process.pid).children(recursive=True)
            if self.description["missing"]:
                logger.warning(
                    "not installed, so programs that import it fail: %s",
                    ", ".join(self.description["missing"]),
                )
        except psutil.NoSuchProcess as error:
            self.close()
            raise SandboxError(f"the sandbox's worker ended at its start: {error}") from error
        except SandboxError:
            self.close()
            raise

    @property
    def broken(self) -> bool:
        """Not to be used again."""
        return self._failed_once or self._process.poll() is not None

    @property
    def calibration(self) -> float:
        """How much longer this processor took for a fixed loop than the one on which limits were
        tried.
        """
        return self.description["loop_s"] / REFERENCE_LOOP_S

    @property
    def pid(self) -> int:
        """Of the process whose end ends everything."""
        return self._process.pid

    @contextmanager
    def program(self, source: str, prelude: str = "") -> Iterator["Program"]:
        """A program, ready to be run; after each run all its processes are gone, and its files
        before the next.
        """
        control = self._supervisors.pop() if self._supervisors else self._supervisor()
        healthy = False
        self.programs += 1
        try:
            with channels.file(json.dumps({"prelude": prelude, "source": source}).encode()) as file:
                yield Program(self, control, file)
            healthy = True
        finally:
            self.programs -= 1
            if healthy:
                self._supervisors.append(control)
            else:  # it may be in the middle of a run, which ends with it
                channels.close(control)

    def _supervisor(self) -> socket.socket:
        """A socket of a new one."""
        ours, theirs = channels.socket_pair()
        with theirs:
            try:
                socket.send_fds(self._channel, [b"{}"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self._failed("take a program", error) from error
        return ours

    def close(self) -> None:
        """End the interpreter and all it started."""
        self._failed_once = True
        for one in (*self._supervisors, self._channel):
            channels.close(one)
        try:
            # The interpreter ends by itself, and those around it (bubblewrap's processes) after it.
            psutil.wait_procs(self._inside, REAP_S)
            for process in reversed(self._inside):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                    process.kill()
                    process.wait(REAP_S)
            self._process.kill()
            self._process.wait(END_S)
        finally:
            self._log.close()
            self.groups.remove()
            if self._scratch:
                self._scratch.cleanup()

    def _receive(self, channel: socket.socket, seconds: float, what: str) -> dict[str, Any]:
        channel.settimeout(seconds)
        try:
            data = channel.recv(_PACKET)
        except TimeoutError as error:
            raise self._failed(what, f"no answer for {seconds:.0f} s") from error
        except OSError as error:
            raise self._failed(what, error) from error
        if not data:
            raise self._failed(what, "it ended")
        try:
            answer = json.loads(data)
        except ValueError:  # an error that was too long for one packet
            answer = {"error": data.decode(errors="replace")}
        if "error" in answer:
            raise self._failed(what, answer["error"])
        return answer

    def _failed(self, what: str, why: object) -> SandboxError:
        self._failed_once = True
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        said = self._log.read().decode(errors="replace").strip()
        return SandboxError(
            f"the sandbox's worker {self._process.pid} could not {what}: {why}; its output: {said}"
        )


class Program:
    """A program on a worker; each run starts it anew, with an empty scratch folder."""

    def __init__(self, worker: Worker, control: socket.socket, source: int):
        self._worker, self._control, self._source = worker, control, source
        self._has_run = False

    def run(self, stdin: bytes, limits: Limits) -> Outcome:
        """Run it as ``python3 solution.py < stdin``."""
        return self._run({"kind": "stdin"}, limits, stdin)

    def call(self, entry_point: str, arguments: Sequence[str], limits: Limits) -> Outcome:
        """Call a function, or a method of ``Solution``, with each of ``arguments`` (encoded
        sequences) in one process.

        ``limits`` are for all calls together; ``Outcome.result`` has a line for each that returned.
        """
        with channels.file() as result:
            return self._run(
                {"kind": "call", "entry_point": entry_point},
                limits,
                "\n".join(arguments).encode(),
                result,
            )

    def begin_serving(
        self, channel: socket.socket, records: tuple[str, ...], limits: Limits
    ) -> "Run":
        """Let it answer calls that come over ``channel``."""
        return Run(self, {"kind": "serve", "records": records}, limits, b"", channel.fileno())

    def asserts(
        self,
        channel: socket.socket,
        names: tuple[str, ...],
        records: tuple[str, ...],
        objects: bool,
        limits: Limits,
    ) -> Outcome:
        """Run it as trusted tests, in which ``names`` are answered over ``channel``."""
        request = {"kind": "asserts", "names": names, "records": records, "objects": objects}
        return self._run(request, limits, b"", channel.fileno())

    def _run(
        self, request: dict[str, Any], limits: Limits, stdin: bytes, more: int | None = None
    ) -> Outcome:
        with Run(self, request, limits, stdin, more) as run:
            return run.outcome()


class Run:
    """A run that has begun."""

    def __init__(
        self,
        program: Program,
        request: dict[str, Any],
        limits: Limits,
        stdin: bytes,
        more: int | None,
    ):
        self._program, self._limits, self._more = program, limits, more
        self._is_call = request["kind"] == "call"
        program._worker.groups.allow(program._worker.programs * limits.memory_bytes)
        request = {
            **request,
            "fresh": not program._has_run,
            "cpu_s": limits.cpu_s,
            "idle_s": limits.idle_s,
            "wall_s": limits.wall_s,
            "memory": limits.memory_bytes,
            "output": limits.output_bytes,
        }
        program._has_run = True
        self._files = contextlib.ExitStack()
        files = [
            self._files.enter_context(channels.file(content)) for content in (stdin, None, None)
        ]
        self._stdout, self._stderr = files[1:]
        descriptors = [program._source, *files] + ([] if more is None else [more])
        try:
            socket.send_fds(program._control, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            self._files.close()
            raise program._worker._failed("run a program", error) from error

    def outcome(self) -> Outcome:
        """Wait for its end."""
        worker, limits = self._program._worker, self._limits
        ended = worker._receive(self._program._control, limits.wall_s + GRACE_S, "run a program")
        stdout = channels.content(self._stdout)
        exceeded = ended["why"]
        if (
            exceeded is None
            and max(map(channels.size, (self._stdout, self._stderr))) >= limits.output_bytes
        ):
            exceeded = "output"
        stderr = channels.content(self._stderr, _STDERR_BYTES).decode(errors="replace")
        if (
            exceeded is None
            and ended["exit"] != 0
            and "MemoryError" in stderr.rpartition("\n")[0].rpartition("\n")[2]
        ):
            exceeded = "memory"
        return Outcome(
            exit_code=ended["exit"],
            exceeded=exceeded,
            stdout=stdout,
            stderr=stderr,
            result=channels.content(self._more)
            if self._is_call and self._more is not None
            else b"",
            cpu_s=ended["cpu_s"],
            wall_s=ended["wall_s"],
            memory_bytes=ended["memory"],
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._files.close()
