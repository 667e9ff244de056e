"""What surrounds the programs of one supervisor, by isolation tier: where they start and are found.

Invariant: a run starts in the same surroundings as any other: an empty scratch folder, no process
but its own, and with namespaces also the same process ids and mounts that are as new as the run.
"""

import contextlib
import marshal
import os
import signal
import socket

import confinement
import namespaces
import packets
import program_process
import pytest_runner


class Namespaces:
    """The pid and mount namespace of this process, which is process 1 there.

    The programs are children of the zygote, which is outside; their orphans are children of this
    process.
    """

    def __init__(self, settings, zygote):
        """``zygote``: a socket to it."""
        self.settings, self.zygote = settings, zygote
        self.proc = namespaces.mount_full_proc()
        self.has_mounts = self.has_pytest = False

    def renew(self):
        """Remove what the last run left, but for its processes."""
        scratch = self.settings["scratch"]
        if self.has_mounts:
            namespaces.unmount_path("/proc")
            namespaces.unmount_path(scratch)
        self.has_mounts = True
        namespaces.mount_program_proc()
        namespaces.mount_scratch(
            scratch, self.settings["scratch_bytes"], self.settings["scratch_files"]
        )
        namespaces.reset_process_ids(self.proc)

    def start_program(self, request, descriptors, ready):
        """Start a program; return a descriptor that becomes readable when it ends."""
        if request["kind"] == "pytest" and not self.has_pytest:
            self.zygote.send(b"pytest")
            self.has_pytest = bool(self.zygote.recv(1))
        socket.send_fds(self.zygote, [marshal.dumps(request)], [*descriptors, ready])
        return self.zygote.fileno()

    def wait_for_program(self):
        """Return exit code, CPU seconds and largest resident size in bytes, once it has ended."""
        reply = self.zygote.recv(packets.MAX_PACKET_BYTES)
        if not reply:
            raise RuntimeError("the zygote has ended")
        return marshal.loads(reply)

    def list_processes(self):
        """Return the ids of all processes of the run."""
        return [int(name) for name in os.listdir(self.proc) if name.isdigit() and name != "1"]

    def kill_processes(self):
        """Kill all processes of the run."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all but process 1, which this is


class OwnDescendants:
    """The machine as it is: the tier ``rlimits``. Programs are children of this process."""

    proc = "/proc"

    def __init__(self, settings):
        self.settings = settings
        self.program = self.pidfd = None
        confinement.adopt_orphans()

    def renew(self):
        confinement.empty_folder(self.settings["scratch"])

    def start_program(self, request, descriptors, ready):
        if request["kind"] == "pytest":
            pytest_runner.preload_pytest()
        self.program = os.fork()
        if self.program == 0:
            program_process.prepare_process(self.settings)
            program_process.become_program(self.settings, request, descriptors, ready)
        self.pidfd = os.pidfd_open(self.program)
        return self.pidfd

    def wait_for_program(self):
        os.close(self.pidfd)
        return program_process.wait_for_end(self.program)

    def list_processes(self):
        return confinement.list_descendants(os.getpid())

    def kill_processes(self):
        for pid in self.list_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
