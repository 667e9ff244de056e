"""The judge's side of one warm interpreter.

Invariants:
* A worker runs one program at a time (and, in a jail beside it, the tests that call it); everything
  that a program leaves behind is removed before the next (:mod:`.inside.supervisor`).
* Every answer is awaited with a deadline beyond the program's own limits. If it passes, or if the
  worker dies, a :class:`SandboxError` is raised and the worker is broken: it is ended and never
  used again.
"""

import contextlib
import json
import logging
import marshal
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from verl_pipeline.processes import wait_until_ended
from verl_pipeline.sandbox import channels
from verl_pipeline.sandbox.cgroup import WorkerCgroups
from verl_pipeline.sandbox.launch_command import MAX_PROCESSES, Tier, build_launch_command
from verl_pipeline.sandbox.program_run import SandboxedProgram
from verl_pipeline.sandbox.run_outcome import SandboxError
from verl_pipeline.sandbox.start_failures import explain_start_failure

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
EXIT_TIMEOUT_S = 10.0
# Seconds for a process of the jail to be reaped by its parent; the parent may be stopped, and is
# then killed too.
REAP_TIMEOUT_S = 1.0
# CPU seconds that the fixed loop of :func:`.inside.warm_interpreter.measure_loop_seconds` took on
# the machine on which the data sets' limits were tried: the fastest of 400 runs on an Intel Xeon at
# 2.5 GHz, CPython 3.11.
REFERENCE_LOOP_S = 0.0076
# Processes and threads of bubblewrap, the interpreter and two supervisors, with a margin.
JAIL_TASKS = 32
_MAX_PACKET_BYTES = 1 << 16
_LOG_TAIL_BYTES = 2000


class SandboxWorker:
    """A warm interpreter in its jail; must not be used by two threads at once.

    Raises:
        SandboxError: it does not start; the message says why, and what to do
            (:mod:`.start_failures`).
    """

    def __init__(self, tier: Tier = "namespaces", hash_seed: int = 0):
        self.tier = tier
        self._hash_seed = hash_seed
        self._has_failed = False
        # Programs loaded now: one, or one and the tests that call it.
        self.loaded_programs = 0
        self._idle_supervisors: list[socket.socket] = []
        self._jail_processes: list[psutil.Process] = []
        with contextlib.ExitStack() as undo:
            try:
                self._start_process(undo)
                self.description = self.receive_answer(self._channel, START_TIMEOUT_S, "start")
                self._jail_processes = psutil.Process(self.pid).children(recursive=True)
            except (SandboxError, OSError, psutil.NoSuchProcess) as error:
                if isinstance(error, SandboxError) and error.fix:
                    raise
                raise explain_start_failure(tier, str(error)) from error
            undo.pop_all()
        if self.description["missing"]:
            missing = self.description["missing"]
            logger.warning(
                "not installed, so programs that import it fail: %s (pip install %s)",
                ", ".join(missing),
                " ".join(missing),
            )

    def _start_process(self, undo: contextlib.ExitStack) -> None:
        """Start the interpreter; ``undo`` then ends it, or removes what there is before it starts.

        Raises:
            SandboxError: bubblewrap or a folder for temporary files is missing, or ``rlimits`` was
                chosen by root.
            OSError: the command cannot be executed.
        """
        try:
            tempfile.gettempdir()
        except FileNotFoundError as error:
            raise SandboxError(
                f"no folder for temporary files is writable: {error.strerror}",
                "set TMPDIR to a writable folder, or make /tmp writable (Docker: --tmpfs /tmp; "
                "Kubernetes: an emptyDir at /tmp)",
            ) from error
        self._scratch = None
        if self.tier == "rlimits":
            self._scratch = tempfile.TemporaryDirectory(
                prefix="verl_pipeline_scratch_", ignore_cleanup_errors=True
            )
            undo.callback(self._scratch.cleanup)
        scratch = self._scratch.name if self._scratch else None
        launch = build_launch_command(self.tier, scratch, self._hash_seed)
        self._log = undo.enter_context(tempfile.TemporaryFile())
        # Two jails: one for the program, one for the tests that call it.
        self.cgroups = WorkerCgroups(2 * MAX_PROCESSES + JAIL_TASKS)
        undo.callback(self.cgroups.remove_groups)
        our_end, jail_end = channels.make_socket_pair()
        self._channel = our_end
        undo.callback(our_end.close)
        with jail_end:
            arguments = [str(jail_end.fileno()), json.dumps(launch.settings)]
            self._process = subprocess.Popen(
                self.cgroups.wrap_command([*launch.command, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=launch.environment,
                pass_fds=[jail_end.fileno()],
                start_new_session=True,
                cwd="/",
            )
        undo.callback(self.close)

    @property
    def is_broken(self) -> bool:
        """Whether it must not be used again."""
        return self._has_failed or self._process.poll() is not None

    @property
    def calibration(self) -> float:
        """CPU time of a fixed loop here, as a multiple of that on the reference machine."""
        return self.description["loop_s"] / REFERENCE_LOOP_S

    @property
    def pid(self) -> int:
        """Process id of the outermost process; if it ends, the whole jail ends."""
        return self._process.pid

    @contextmanager
    def load_program(self, source: str, prelude: str = "") -> Iterator[SandboxedProgram]:
        """Yield a program that can be run.

        After each run all its processes have ended; its files are removed before the next run.
        """
        control = (
            self._idle_supervisors.pop() if self._idle_supervisors else self._start_supervisor()
        )
        is_healthy = False
        self.loaded_programs += 1
        try:
            content = marshal.dumps((prelude, source))
            with channels.open_memory_file(content) as file:
                yield SandboxedProgram(self, control, file)
            is_healthy = True
        finally:
            self.loaded_programs -= 1
            if is_healthy:
                self._idle_supervisors.append(control)
            else:  # a run may still be in progress; it ends with its supervisor
                channels.close_socket(control)

    def _start_supervisor(self) -> socket.socket:
        """Return a socket to a new supervisor."""
        our_end, jail_end = channels.make_socket_pair()
        with jail_end:
            try:
                socket.send_fds(self._channel, [b"{}"], [jail_end.fileno()])
            except OSError as error:
                our_end.close()
                raise self.record_failure("take a program", error) from error
        return our_end

    def close(self) -> None:
        """End the interpreter and all processes that it started."""
        self._has_failed = True
        for channel in (*self._idle_supervisors, self._channel):
            channels.close_socket(channel)
        try:
            # The interpreter ends by itself, and bubblewrap's processes around it after it.
            alive = wait_until_ended(self._jail_processes, REAP_TIMEOUT_S)
            for process in reversed(alive):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                wait_until_ended([process], REAP_TIMEOUT_S)
            self._process.kill()
            self._process.wait(EXIT_TIMEOUT_S)
        finally:
            self._log.close()
            self.cgroups.remove_groups()
            if self._scratch:
                self._scratch.cleanup()

    def receive_answer(
        self, channel: socket.socket, timeout_s: float, action: str
    ) -> dict[str, Any]:
        """Receive one answer; ``action`` names what the worker could not do, in errors.

        Raises:
            SandboxError: no answer came in time, the worker ended, or it answered with an error.
        """
        channel.settimeout(timeout_s)
        try:
            data = channel.recv(_MAX_PACKET_BYTES)
        except TimeoutError as error:
            raise self.record_failure(action, f"no answer for {timeout_s:.0f} s") from error
        except OSError as error:
            raise self.record_failure(action, error) from error
        if not data:
            raise self.record_failure(action, "it ended")
        try:
            answer = json.loads(data)
        except ValueError:  # an error message that was too long for one packet
            answer = {"error": data.decode(errors="replace")}
        if "error" in answer:
            raise self.record_failure(action, answer["error"])
        return answer

    def record_failure(self, action: str, reason: object) -> SandboxError:
        """Mark the worker as broken and return the error to raise."""
        self._has_failed = True
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        output = self._log.read().decode(errors="replace").strip()
        return SandboxError(
            f"the sandbox's worker {self._process.pid} could not {action}: {reason}; its output: "
            f"{output}"
        )
