"""Runs programs one after another and watches each run; process 1 of their namespaces.

Invariants:
* No code of the program runs in this process, which the program can neither trace nor signal.
* After a run none of its processes is left: as process 1 the supervisor kills all others, and waits
  until it has no child. A run starts with an empty scratch folder.
* A failure before the program's first instruction can be told from anything that a program can do.
* The supervisor ends when the judge closes the socket.
"""

import functools
import os
import select
import signal
import time

import answer_clock
import confinement
import packets
import program_process
import usage_meter

# Seconds between two measurements of a running program, and before the first: most programs have
# ended by then.
WATCH_INTERVAL_S = 0.05


class Supervisor:
    """Answers requests to run a program, one at a time.

    A request has ``kind`` (``stdin``, ``call``, ``serve``, ``asserts`` or ``pytest``), ``cpu_s``,
    ``idle_s``, ``wall_s``, ``memory``, ``output``, and descriptors: source, standard input, output
    and error, for all kinds but ``stdin`` one more, and for the last three a clock
    (:mod:`answer_clock`).
    """

    def __init__(self, control, surroundings):
        self.control, self.surroundings = control, surroundings
        confinement.forbid_tracing()

    def serve_requests(self):
        while (message := packets.receive_request(self.control)) is not None:
            request, descriptors = message
            try:
                outcome = self.run_program(request, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if outcome is None:  # the judge has closed the socket
                return
            packets.send_reply(self.control, outcome)

    def run_program(self, request, descriptors):
        """Run the program, end all its processes and return the outcome.

        Returns None if the judge has closed the socket.
        """
        self.surroundings.renew()
        read_end, write_end = os.pipe()
        start = time.monotonic()
        meter = usage_meter.UsageMeter(
            start,
            _make_turn_reader(request["kind"], descriptors, start),
            self.surroundings.proc,
        )
        end = self.surroundings.start_program(request, descriptors, write_end)
        os.close(write_end)
        try:
            why = self.watch_program(meter, end, request)
            wall = time.monotonic() - start
        finally:
            status, cpu, memory = self.end_processes()
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
        if mark != program_process.CONFINED_MARK:
            message = report.decode(errors="replace") or status
            return {"error": f"the program could not be confined: {message}"}
        cpu = max(0.0, cpu - float(setup_cpu))  # confining it does not count as its own time
        if why is None and cpu > request["cpu_s"]:
            why = "cpu"
        if why is None and status == -signal.SIGSEGV and memory >= request["memory"]:
            why = "memory"  # its stack could not grow any more
        return {"exit": status, "why": why, "cpu_s": cpu, "wall_s": wall, "memory": memory}

    def watch_program(self, meter, program_end, request):
        """Wait for the program's end and return None, or stop waiting and return why.

        That is the limit it exceeded (``cpu``, ``memory``, ``wall``), ``gone`` if the judge has
        closed the socket, or ``busy`` if the machine was too busy for a verdict. ``program_end``
        is a descriptor that is readable once the program has ended.
        """
        poll = select.poll()
        poll.register(program_end, select.POLLIN)
        poll.register(self.control, select.POLLIN | select.POLLHUP | select.POLLRDHUP)
        while True:
            events = dict(poll.poll(WATCH_INTERVAL_S * 1000))
            if program_end in events:
                return None
            if events:
                return "gone"
            meter.measure_processes(self.surroundings.list_processes(), time.monotonic())
            if meter.cpu_s > request["cpu_s"]:
                return "cpu"
            if meter.memory > request["memory"]:
                return "memory"
            if meter.idle_s > request["idle_s"]:
                return "wall"
            if meter.wall_s > request["wall_s"]:
                return "wall" if meter.surely_idle_s > request["idle_s"] else "busy"

    def end_processes(self):
        """Kill all processes that are left and reap them.

        Returns the program's exit code (negative: a signal), the CPU seconds of all processes, and
        the largest resident size of one of them in bytes.
        """
        self.surroundings.kill_processes()
        status, cpu, memory = self.surroundings.wait_for_program()
        while True:
            try:
                _status, more_cpu, more_memory = program_process.wait_for_end(-1)
            except ChildProcessError:
                return status, cpu, memory
            cpu += more_cpu
            memory = max(memory, more_memory)
            # Without namespaces, orphans may have become our children only now.
            self.surroundings.kill_processes()


def _make_turn_reader(kind, descriptors, start):
    """Return how a run's turns are read, for :class:`usage_meter.UsageMeter`."""
    if kind not in ("serve", "asserts", "pytest"):
        return None
    read_awaited_seconds = functools.partial(answer_clock.read_awaited_seconds, descriptors[-1])
    if kind == "serve":
        return read_awaited_seconds
    return lambda now: now - start - read_awaited_seconds(now)
