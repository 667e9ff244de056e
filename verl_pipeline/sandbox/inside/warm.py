"""A warm interpreter: forks a supervisor, which forks one process for each run of a program.

    server (imports done once, runs no program) `- supervisor     process 1 in user, pid and mount
      namespaces of its own (one for programs, one for the tests that
           |            ask them); mounts /proc and the scratch folder, counts time and memory, kills
           `- program   Landlock, seccomp, limits; new for each run

Loaded inside the jail, as ``python -I -S warm.py <descriptor> <settings as JSON>``. The judge asks
the server over the descriptor (a Unix socket of packets) and each supervisor over a socket of its
own that comes with the question.

Invariants:
* Server and supervisor execute nothing of a program's; a program reaches neither: their processes
  are outside its pid namespace or undumpable, and it holds no descriptor of theirs.
* When the judge closes a supervisor's socket, the supervisor ends, and with it all processes of its
  namespaces; when it closes the server's, the server ends.
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

import candidate  # noqa: E402
import confine  # noqa: E402
import syscalls  # noqa: E402
from supervisor import Supervisor, receive, reply  # noqa: E402

NO_SCOPES = (
    "the tier 'rlimits' needs Landlock with scopes (ABI 6, Linux 6.12): without it a program can "
    "signal its judge, and below ABI 1 read its memory; use the tier 'namespaces' or 'remote'"
)


def main():
    channel = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.path += settings["packages"]
    sys.argv[1:] = []
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a handler could be reached from inside a pid namespace
    settings["readable"] = [path for path in settings["readable"] if os.path.exists(path)]
    missing = preload(settings["imports"])
    site.setquit()  # exit() and quit(), which -S leaves out
    candidate.have_ready(settings["prelude"])
    settings["filter"] = syscalls.compiled()
    settings["landlock"] = confine.landlock_abi()
    if not settings["namespaces"] and settings["landlock"] < 6:
        reply(channel, {"error": f"{NO_SCOPES} (here: ABI {settings['landlock']})"})
        return
    if settings["landlock"]:
        settings["rules"] = confine.landlock_rules(
            settings["landlock"], settings["readable"], [settings["writable"], "/dev/null"]
        )
    gc.collect()
    gc.freeze()  # forks share these pages as long as nobody counts references in them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    reply(channel, {"missing": missing, "loop_s": loop_seconds()})
    while (message := receive(channel)) is not None:
        _question, descriptors = message
        fork = confine.fork_into_namespaces if settings["namespaces"] else os.fork
        if fork() == 0:
            channel.close()
            supervise(socket.socket(fileno=descriptors[0]), settings)
        for descriptor in descriptors:
            os.close(descriptor)
    if not settings["namespaces"]:
        confine.remove_below(settings["scratch"])
        os.rmdir(settings["scratch"])


def preload(names):
    """Import what programs import; returns the names that are not installed."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def loop_seconds():
    """CPU seconds of a fixed loop, the fastest of three: how fast this processor runs Python now."""
    found = []
    for _ in range(3):
        begin = time.process_time()
        for number in range(100_000):
            number * number % 7
        found.append(time.process_time() - begin)
    return min(found)


def supervise(control, settings):
    """Be a supervisor, to the end of this process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if settings["namespaces"]:
            confine.die_with_parent()
            confine.mount_proc()
        else:
            confine.adopt_orphans()
        Supervisor(control, settings).serve()
    except BaseException:
        with contextlib.suppress(OSError):
            reply(control, {"error": traceback.format_exc()})
    os._exit(0)


if __name__ == "__main__":
    main()
