"""Runs programs, one after another, watches each run and ends all of it; process 1 of their
namespaces.

Invariants:
* Nothing of the program's runs in this process, which the program can neither trace nor signal.
* After a run none of its processes is left: as process 1 it kills all others, and waits until it
  has no child. A run begins with an empty scratch folder.
* A failure before the program's first instruction is told apart from all that a program can do.
* When the judge closes the socket, or no run is to come, it ends.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import time
import traceback

import asserts
import candidate
import confine
import exits
import usage

PACKET = 1 << 16
MODULES_OF_THE_JAIL = (
    "asserts candidate confine exits messages supervisor syscalls usage values warm".split()
)
# Seconds between two looks at a running program; the first comes this late as well, most programs
# have ended by then.
LOOK_S = 0.05
_READY = b"confined"


class Supervisor:
    """Answers requests to run the program; one at a time.

    A request has ``kind`` (``stdin``, ``call``, ``serve`` or ``asserts``), ``fresh`` (a program's
    first run), ``cpu_s``, ``idle_s``, ``wall_s``, ``memory``, ``output``, and descriptors: source,
    standard input, output and error, and for all but ``stdin`` one more.
    """

    def __init__(self, control, settings):
        self.control, self.settings = control, settings
        self.scratch = settings["scratch"]
        self.untouched = None
        confine.undumpable()

    def serve(self):
        while (message := receive(self.control)) is not None:
            request, descriptors = message
            try:
                outcome = self.run(request, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if outcome is None:  # the judge has gone
                return
            reply(self.control, outcome)

    def run(self, request, descriptors):
        """One run, to its end and the end of all it started."""
        self.empty_scratch(request["fresh"])
        if self.settings["namespaces"]:
            confine.begin_process_ids()
        reading, writing = os.pipe()
        start = time.monotonic()
        meter = usage.Meter(start)
        program = os.fork()
        if program == 0:
            os.close(reading)
            self.become(request, descriptors, writing)
        os.close(writing)
        watched = os.pidfd_open(program)
        try:
            why = self.watch(meter, watched, request)
            wall = time.monotonic() - start
        finally:
            os.close(watched)
            status, cpu, memory = self.end_all(program)
        cpu = max(cpu, meter.cpu_s)  # of children that nobody waited for only the meter knows
        with open(reading, "rb") as file:
            said = file.read()
        if why == "gone":
            return None
        if why == "busy":
            return {
                "error": (
                    f"the machine was too busy: {cpu:.1f} s of CPU in {wall:.0f} s, "
                    f"{meter.idle_s:.1f} s idle"
                )
            }
        head, _space, before = said.partition(b" ")
        if head != _READY:
            return {
                "error": (
                    f"the program could not be confined: {said.decode(errors='replace') or status}"
                )
            }
        cpu = max(0.0, cpu - float(before))  # what confining it took is not its own
        if why is None and cpu > request["cpu_s"]:
            why = "cpu"
        return {"exit": status, "why": why, "cpu_s": cpu, "wall_s": wall, "memory": memory}

    def empty_scratch(self, fresh):
        """``fresh``: for another program, which shall not see how much others have written."""
        if not self.settings["namespaces"]:
            confine.remove_below(self.scratch)
        elif (
            fresh or os.stat(self.scratch).st_ctime_ns != self.untouched or os.listdir(self.scratch)
        ):
            # The time of its last change, which nobody can set, says that most programs write
            # nothing: mounts are slow.
            if self.untouched is not None:
                confine.unmount(self.scratch)
            confine.mount_scratch(
                self.scratch, self.settings["scratch_bytes"], self.settings["scratch_files"]
            )
            self.untouched = os.stat(self.scratch).st_ctime_ns

    def become(self, request, descriptors, ready):
        """Turn this process into the program."""
        try:
            confine.dumpable()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            os.chdir(self.scratch)
            source_file, stdin, stdout, stderr, *more = descriptors
            program = json.loads(os.pread(source_file, os.fstat(source_file).st_size, 0))
            if request["kind"] != "asserts":  # the tests are not what fills the memory
                confine.worth_killing()
            processes = self.settings["processes"]
            if not self.settings["namespaces"]:
                processes += confine.threads_of_user()
            confine.no_new_privileges()
            confine.drop_capabilities()
            if self.settings["landlock"]:
                confine.landlock(self.settings["rules"])
            confine.limits(
                int(request["cpu_s"]) + 2,
                request["memory"],
                request["output"],
                processes,
                self.settings["files"],
            )
            confine.seccomp(self.settings["filter"])
            ready = candidate.prepare(stdin, stdout, stderr, more[0] if more else None, ready)
            candidate.forget_the_jail(MODULES_OF_THE_JAIL)
            os.write(ready, _READY + b" %f" % time.process_time())
            os.close(ready)
        except BaseException:
            os.write(ready, traceback.format_exc().encode())
            os._exit(1)
        code = exits.RAISED
        try:
            code = self.execute(request, program["prelude"], program["source"])
        finally:
            os._exit(code)

    def execute(self, request, prelude, source):
        kind = request["kind"]
        if kind == "stdin":
            return candidate.run(prelude, source)
        if kind == "call":
            with open(0, encoding="utf-8", closefd=False) as file:
                arguments = file.read().splitlines()
            return candidate.call(prelude, source, request["entry_point"], arguments, 3)
        if kind == "serve":
            return candidate.serve(prelude, source, 3, request["records"])
        return asserts.run(
            prelude, source, 3, request["names"], request["records"], request["objects"]
        )

    def watch(self, meter, watched, request):
        """Wait for the program's end; what it exceeded, ``gone`` if the judge has closed, ``busy``,
        or None.
        """
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.register(self.control, select.POLLIN | select.POLLHUP | select.POLLRDHUP)
        while True:
            events = dict(poll.poll(LOOK_S * 1000))
            if watched in events:
                return None
            if events:
                return "gone"
            meter.look(self.processes(), time.monotonic())
            if meter.cpu_s > request["cpu_s"]:
                return "cpu"
            if meter.memory > request["memory"]:
                return "memory"
            if meter.idle_s > request["idle_s"]:
                return "wall"
            if meter.wall_s > request["wall_s"]:
                return "wall" if meter.surely_idle_s > request["idle_s"] else "busy"

    def processes(self):
        if not self.settings["namespaces"]:
            return confine.descendants(os.getpid())
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]

    def end_all(self, program):
        """Kill what is left and reap it: exit code (negative: a signal), CPU seconds, largest
        resident bytes.
        """
        status, cpu, memory = None, 0.0, 0
        self.kill_all()
        while True:
            try:
                pid, code, used = os.wait4(-1, 0)
            except ChildProcessError:
                return status, cpu, memory
            cpu += used.ru_utime + used.ru_stime
            memory = max(memory, used.ru_maxrss * 1024)
            if pid == program:
                status = os.waitstatus_to_exitcode(code)
            if not self.settings["namespaces"]:
                self.kill_all()  # orphans that have only now become ours

    def kill_all(self):
        if self.settings["namespaces"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everybody but process 1, which this is
            return
        for pid in confine.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def receive(channel):
    """``(message, descriptors)``, or None once the other side has closed."""
    data, ancillary, _flags, _address = channel.recvmsg(PACKET, socket.CMSG_SPACE(8 * 4))
    if not data:
        return None
    descriptors = array.array("i")
    for _level, _kind, content in ancillary:
        descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return json.loads(data), list(descriptors)


def reply(channel, message):
    channel.send(json.dumps(message).encode()[:PACKET])
