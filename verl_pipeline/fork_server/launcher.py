"""Started in place of Python: has the server fork the process, and stands for it until it ends.

``launcher.py ADDRESS PYTHON arguments...``: ``arguments`` are those of a Python command line.

Run by a bare interpreter, so it imports the standard library only, and little of it. If the server
cannot fork the process, the launcher becomes the plain Python that was to be started.
"""

import array
import json
import os
import resource
import signal
import socket
import sys

# Seconds for the server to end its imports and to fork; a plain Python is not slower than this.
ANSWER_S = 120.0
# What a process may ask of another one through its launcher.
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Status of a process whose server was killed, since its forks are killed with it.
KILLED = -int(signal.SIGKILL)


def describe_process(arguments: list[str], environment: dict[str, str]) -> dict:
    """What a forked process has to take over from this one, as JSON."""
    ignored = [
        int(number)
        for number in signal.valid_signals()
        if number not in (signal.SIGKILL, signal.SIGSTOP)
        and signal.getsignal(number) is signal.SIG_IGN
    ]
    return {
        "arguments": arguments,
        "environment": environment,
        "folder": os.getcwd(),
        "session": os.getsid(0) == os.getpid(),
        "group": os.getpgrp() == os.getpid(),
        "end_signal": int(signal.SIGKILL),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "ignored": ignored,
        "umask": read_umask(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "limits": [(number, resource.getrlimit(number)) for number in list_limits()],
        "oom_score_adj": read_oom_score_adj(),
    }


def list_limits() -> list[int]:
    """Numbers of the resource limits that the kernel has."""
    return sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


def read_oom_score_adj() -> int:
    """How eager the kernel is to kill this process when memory runs out; Ray raises it."""
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())


def read_umask() -> int:
    """The file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def send_request(
    address: str, request: dict, descriptors: list[int], numbers: list[int]
) -> socket.socket:
    """Ask the server at ``address``; the connection stands for the life of the forked process.

    Args:
        descriptors: open ones of this process, for the forked one.
        numbers: what the forked process knows them by.

    Raises:
        OSError: there is no server, or it does not answer.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_S)
    connection.connect(address)
    body = json.dumps({**request, "descriptors": numbers}).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    connection.sendmsg([len(body).to_bytes(8, "big")], [rights])
    connection.sendall(body)
    return connection


def read_number(connection: socket.socket) -> int:
    """The next number that the server says.

    Raises:
        OSError: the server ended, or said nothing in time.
    """
    text = b""
    while not text.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            raise ConnectionResetError("the fork server has ended")
        text += part
    return int(text)


def list_descriptors() -> list[int]:
    """This process's open descriptors that a new program would inherit."""
    numbers = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    inherited = []
    for number in numbers:
        try:
            if os.get_inheritable(number):
                inherited.append(number)
        except OSError:  # the one that listed the folder
            continue
    return inherited


def forward_signal(pid: int, number: int) -> None:
    """Send a signal on, unless the process has ended: its status is on the way then."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end_with_status(status: int) -> None:
    """End as the forked process did: with its exit code, or by its signal (negative)."""
    if status >= 0:
        os._exit(status)
    if -status not in (signal.SIGKILL, signal.SIGSTOP):  # these have no handler
        signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
    os.kill(os.getpid(), -status)
    os._exit(128 - status)


def main() -> None:
    """Ask for the process; wait for its end."""
    address, python, *arguments = sys.argv[1:]
    descriptors = list_descriptors()
    try:
        request = describe_process(arguments, dict(os.environ))
        connection = send_request(address, request, descriptors, descriptors)
        pid = read_number(connection)
        if pid <= 0:
            raise ConnectionRefusedError("the fork server cannot fork this process")
    except (OSError, ValueError):
        os.execv(python, [python, *arguments])
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: forward_signal(pid, number))
    # Whoever waits for the end of the process waits for the last copy of these to be closed.
    for descriptor in descriptors:
        os.close(descriptor)
    connection.settimeout(None)
    try:
        status = read_number(connection)
    except OSError:
        status = KILLED
    end_with_status(status)


if __name__ == "__main__":
    main()
