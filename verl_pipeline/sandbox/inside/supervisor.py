"""Runs programs one after another and watches each run; process 1 of their namespaces.

Invariants:
* No code of the program runs in this process, which the program can neither trace nor signal.
* After a run none of its processes is left: as process 1 the supervisor kills all others, and waits
  until it has no child. A run starts with an empty scratch folder.
* A failure before the program's first instruction can be told from anything that a program can do.
* The supervisor ends when the judge closes the socket.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback

import assert_runner
import call_server
import confinement
import exit_codes
import process_setup
import program_runner
import pytest_runner
import usage_meter

MAX_PACKET_BYTES = 1 << 16
# Every module of this folder: a program must not find one of them where it expects its own.
JAIL_MODULES = (
    "assert_runner call_server channel_peer confinement exit_codes library_values messages "
    "process_setup program_runner pytest_runner record_table remote_errors remote_objects "
    "solution_module supervisor syscalls usage_meter value_codec warm_interpreter"
).split()
# Runs of trusted tests.
_TESTS_KINDS = ("asserts", "pytest")
# Seconds between two measurements of a running program, and before the first: most programs have
# ended by then.
WATCH_INTERVAL_S = 0.05
# Written by a process that is confined and about to become the program.
_CONFINED_MARK = b"confined"


class Supervisor:
    """Answers requests to run a program, one at a time.

    A request has ``kind`` (``stdin``, ``call``, ``serve``, ``asserts`` or ``pytest``), ``fresh``
    (whether it is the program's first run), ``cpu_s``, ``idle_s``, ``wall_s``, ``memory``,
    ``output``, and descriptors: source, standard input, output and error, and for all kinds but
    ``stdin`` one more.
    """

    def __init__(self, control, settings):
        self.control, self.settings = control, settings
        self.scratch = settings["scratch"]
        self.scratch_ctime_ns = None  # of an empty scratch folder, once it is mounted
        confinement.forbid_tracing()

    def serve_requests(self):
        while (message := receive_request(self.control)) is not None:
            request, descriptors = message
            try:
                outcome = self.run_program(request, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if outcome is None:  # the judge has closed the socket
                return
            send_reply(self.control, outcome)

    def run_program(self, request, descriptors):
        """Run the program, end all its processes and return the outcome.

        Returns None if the judge has closed the socket.
        """
        if request["kind"] == "pytest":
            pytest_runner.preload_pytest()
        self.empty_scratch(request["fresh"])
        if self.settings["namespaces"]:
            confinement.reset_process_ids()
        read_end, write_end = os.pipe()
        start = time.monotonic()
        meter = usage_meter.UsageMeter(start)
        program = os.fork()
        if program == 0:
            os.close(read_end)
            self.become_program(request, descriptors, write_end)
        os.close(write_end)
        program_pidfd = os.pidfd_open(program)
        try:
            why = self.watch_program(meter, program_pidfd, request)
            wall = time.monotonic() - start
        finally:
            os.close(program_pidfd)
            status, cpu, memory = self.end_processes(program)
        cpu = max(cpu, meter.cpu_s)  # only the meter counts children that nobody waited for
        with open(read_end, "rb") as file:
            report = file.read()
        if why == "gone":
            return None
        if why == "busy":
            return {
                "error": (
                    f"the machine was too busy: {cpu:.1f} s of CPU in {wall:.0f} s, "
                    f"{meter.idle_s:.1f} s idle"
                )
            }
        mark, _space, setup_cpu = report.partition(b" ")
        if mark != _CONFINED_MARK:
            message = report.decode(errors="replace") or status
            return {"error": f"the program could not be confined: {message}"}
        cpu = max(0.0, cpu - float(setup_cpu))  # confining it does not count as its own time
        if why is None and cpu > request["cpu_s"]:
            why = "cpu"
        return {"exit": status, "why": why, "cpu_s": cpu, "wall_s": wall, "memory": memory}

    def empty_scratch(self, fresh):
        """Empty the scratch folder.

        For another program (``fresh``) it is mounted anew in any case: inode numbers would show how
        much others have written.
        """
        if not self.settings["namespaces"]:
            confinement.empty_folder(self.scratch)
        elif (
            fresh
            or os.stat(self.scratch).st_ctime_ns != self.scratch_ctime_ns
            or os.listdir(self.scratch)
        ):
            # Mounting is slow, and most programs write nothing: then the time of the last change,
            # which no program can set, is that of the mount.
            if self.scratch_ctime_ns is not None:
                confinement.unmount_path(self.scratch)
            confinement.mount_scratch(
                self.scratch, self.settings["scratch_bytes"], self.settings["scratch_files"]
            )
            self.scratch_ctime_ns = os.stat(self.scratch).st_ctime_ns

    def become_program(self, request, descriptors, ready):
        """Confine this process and turn it into the program; ``ready`` reports that it is confined.

        The order matters: a restriction may forbid the calls of the steps before it.
        """
        try:
            confinement.allow_tracing()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            os.chdir(self.scratch)
            source_file, stdin, stdout, stderr, *extra = descriptors
            program = json.loads(os.pread(source_file, os.fstat(source_file).st_size, 0))
            if request["kind"] not in _TESTS_KINDS:  # trusted tests do not fill the memory
                confinement.prefer_for_oom_kill()
            processes = self.settings["processes"]
            if not self.settings["namespaces"]:
                processes += confinement.count_user_threads()
            confinement.forbid_new_privileges()
            confinement.drop_capabilities()
            if self.settings["landlock"]:
                confinement.apply_landlock(self.settings["rules"])
            confinement.set_resource_limits(
                int(request["cpu_s"]) + 2,
                request["memory"],
                request["output"],
                processes,
                self.settings["files"],
            )
            confinement.install_seccomp_filter(self.settings["filter"])
            ready = process_setup.prepare_streams(
                stdin, stdout, stderr, extra[0] if extra else None, ready
            )
            process_setup.hide_jail_modules(JAIL_MODULES)
            if request["kind"] in _TESTS_KINDS:
                # Without namespaces the program can write modules to this folder.
                sys.path.remove(os.getcwd())
            os.write(ready, _CONFINED_MARK + b" %f" % time.process_time())
            os.close(ready)
        except BaseException:
            os.write(ready, traceback.format_exc().encode())
            os._exit(1)
        code = exit_codes.RAISED
        try:
            code = self.execute_request(request, program["prelude"], program["source"])
        finally:
            os._exit(code)

    def execute_request(self, request, prelude, source):
        kind = request["kind"]
        if kind == "stdin":
            return program_runner.run_main(prelude, source)
        if kind == "call":
            with open(0, encoding="utf-8", closefd=False) as file:
                arguments = file.read().splitlines()
            return program_runner.run_calls(prelude, source, request["entry_point"], arguments, 3)
        if kind == "serve":
            return call_server.serve_calls(prelude, source, 3, request)
        if kind == "pytest":
            return pytest_runner.run_pytest(source, 3, request, **json.loads(sys.stdin.read()))
        return assert_runner.run_asserts(prelude, source, 3, request)

    def watch_program(self, meter, program_pidfd, request):
        """Wait for the program's end and return None, or stop waiting and return why.

        That is the limit it exceeded (``cpu``, ``memory``, ``wall``), ``gone`` if the judge has
        closed the socket, or ``busy`` if the machine was too busy for a verdict.
        """
        poll = select.poll()
        poll.register(program_pidfd, select.POLLIN)
        poll.register(self.control, select.POLLIN | select.POLLHUP | select.POLLRDHUP)
        while True:
            events = dict(poll.poll(WATCH_INTERVAL_S * 1000))
            if program_pidfd in events:
                return None
            if events:
                return "gone"
            meter.measure_processes(self.list_processes(), time.monotonic())
            if meter.cpu_s > request["cpu_s"]:
                return "cpu"
            if meter.memory > request["memory"]:
                return "memory"
            if meter.idle_s > request["idle_s"]:
                return "wall"
            if meter.wall_s > request["wall_s"]:
                return "wall" if meter.surely_idle_s > request["idle_s"] else "busy"

    def list_processes(self):
        if not self.settings["namespaces"]:
            return confinement.list_descendants(os.getpid())
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]

    def end_processes(self, program):
        """Kill all processes that are left and reap them.

        Returns the program's exit code (negative: a signal), the CPU seconds of all processes, and
        the largest resident size of one of them in bytes.
        """
        status, cpu, memory = None, 0.0, 0
        self.kill_processes()
        while True:
            try:
                pid, code, usage = os.wait4(-1, 0)
            except ChildProcessError:
                return status, cpu, memory
            cpu += usage.ru_utime + usage.ru_stime
            memory = max(memory, usage.ru_maxrss * 1024)  # ru_maxrss is in KiB
            if pid == program:
                status = os.waitstatus_to_exitcode(code)
            if not self.settings["namespaces"]:
                self.kill_processes()  # orphans that have become our children only now

    def kill_processes(self):
        if self.settings["namespaces"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all but process 1, which this is
            return
        for pid in confinement.list_descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def receive_request(channel):
    """Return ``(message, descriptors)``, or None once the peer has closed the channel."""
    # At most eight descriptors of four bytes.
    data, ancillary, _flags, _address = channel.recvmsg(MAX_PACKET_BYTES, socket.CMSG_SPACE(8 * 4))
    if not data:
        return None
    descriptors = array.array("i")
    for _level, _kind, content in ancillary:
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return json.loads(data), list(descriptors)


def send_reply(channel, message):
    channel.send(json.dumps(message).encode()[:MAX_PACKET_BYTES])
