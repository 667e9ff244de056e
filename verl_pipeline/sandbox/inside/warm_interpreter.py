"""A warm interpreter: forks a supervisor, which forks one process for each run of a program.

    server             imports the modules once, runs no program
     `- supervisor     process 1 in its own user, pid and mount namespaces (one supervisor for
         |             programs, one for the tests that call them); mounts /proc and the scratch
         |             folder, counts time and memory, kills
         `- program    Landlock, seccomp, limits; new for each run

Loaded inside the jail as ``python -s -S -P warm_interpreter.py <descriptor> <settings as JSON>``.
The judge sends requests to the server over the descriptor (a Unix socket of packets) and to each
supervisor over a socket of its own, which comes with the request to the server.

Invariants:
* Server and supervisor execute no code of a program. A program reaches neither of them: their
  processes are outside its pid namespace or undumpable, and it holds none of their descriptors.
* When the judge closes a supervisor's socket, the supervisor ends, and with it all processes of its
  namespaces; when the judge closes the server's socket, the server ends.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import site
import socket
import sys
import time
import traceback

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]

import confinement  # noqa: E402
import interpreter_end  # noqa: E402
import program_runner  # noqa: E402
import syscalls  # noqa: E402
from supervisor import Supervisor, receive_request, send_reply  # noqa: E402

# What Linux gives threads by default.
THREAD_STACK_BYTES = 8 << 20
NO_SCOPES_MESSAGE = (
    "the tier 'rlimits' needs Landlock with scopes (ABI 6, Linux 6.12): without it a program can "
    "signal its judge, and below ABI 1 read its memory; use the tier 'namespaces' or 'remote'"
)


def main():
    channel = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.path += settings["packages"]
    sys.argv[1:] = []
    # Process 1 of a pid namespace gets only those signals from inside that it has a handler for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings["readable"] = [path for path in settings["readable"] if os.path.exists(path)]
    interpreter_end.register_shortcut()
    confinement.set_default_stack_size(THREAD_STACK_BYTES)
    missing = preload_modules(settings["imports"])
    site.setquit()  # exit() and quit(), which -S leaves out
    program_runner.preload_prelude(settings["prelude"])
    settings["filter"] = syscalls.compile_filter()
    settings["landlock"] = confinement.get_landlock_abi()
    if not settings["namespaces"] and settings["landlock"] < 6:
        send_reply(channel, {"error": f"{NO_SCOPES_MESSAGE} (here: ABI {settings['landlock']})"})
        return
    if settings["landlock"]:
        settings["rules"] = confinement.build_landlock_rules(
            settings["landlock"], settings["readable"], [settings["writable"], "/dev/null"]
        )
    gc.collect()
    # Collections of forks must not write to these objects, whose pages all forks share.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    send_reply(channel, {"missing": missing, "loop_s": measure_loop_seconds()})
    while (message := receive_request(channel)) is not None:
        _request, descriptors = message
        fork = confinement.fork_into_namespaces if settings["namespaces"] else os.fork
        if fork() == 0:
            channel.close()
            run_supervisor(socket.socket(fileno=descriptors[0]), settings)
        for descriptor in descriptors:
            os.close(descriptor)
    if not settings["namespaces"]:
        confinement.empty_folder(settings["scratch"])
        os.rmdir(settings["scratch"])


def preload_modules(names):
    """Import the modules that programs import; return the names of those not installed."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def measure_loop_seconds():
    """Return the CPU seconds of a fixed loop, the fastest of three: the speed of Python here."""
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        for number in range(100_000):
            number * number % 7
        seconds.append(time.process_time() - begin)
    return min(seconds)


def run_supervisor(control, settings):
    """Run a supervisor until its socket is closed, then end this process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if settings["namespaces"]:
            confinement.die_with_parent()
            confinement.mount_proc()
        else:
            confinement.adopt_orphans()
        Supervisor(control, settings).serve_requests()
    except BaseException:
        with contextlib.suppress(OSError):
            send_reply(control, {"error": traceback.format_exc()})
    os._exit(0)


if __name__ == "__main__":
    main()
