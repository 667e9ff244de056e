"""The process from which the programs of one supervisor are forked, one for each run.

It has dropped its privileges once, for all of them, and its memory is the same for each: both make
a run cheaper than a fork of the supervisor would be.

Invariants:
* It reads, compiles and executes nothing of a program: every run starts from the same memory, the
  first as the hundredth.
* It is outside of the programs' pid namespace and undumpable, so that they can neither see, signal
  nor trace it. What it forks is inside. Its children are the supervisor and programs only: seccomp
  refuses ``CLONE_PARENT``.
* It ends when the supervisor ends, and the supervisor is killed when it ends.
"""

import ctypes
import marshal
import os
import random
import socket
import threading

import confinement
import namespaces
import packets
import program_process
import pytest_runner

# More than Python's longest list of freed objects of one kind (80, PyList_MAXFREELIST).
REHEARSALS = 100
# More than the blocks of one size that a thread keeps (7, TCACHE_FILL_COUNT of glibc).
REHEARSED_FORKS = 10
_REHEARSAL = marshal.dumps(None)
# Each request overwrites the last one in the same place: the memory of a run shows none before it.
_NO_REQUEST = bytes(packets.MAX_PACKET_BYTES)
_request = bytearray(_NO_REQUEST)
# Calls keep the interpreter's lock: the child must have it.
_libc = ctypes.PyDLL(None, use_errno=True)


def fork_supervisor(settings):
    """Fork a supervisor into namespaces of its own, and become its zygote.

    Returns, in the supervisor only, its end of a socket to the zygote.
    """
    our_end, supervisor_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = namespaces.fork_into_namespaces()
    if supervisor == 0:
        our_end.close()
        confinement.die_with_parent()
        # Until the zygote is ready, it may have to trace this process, and uses process ids.
        supervisor_end.recv(1)
        return supervisor_end
    supervisor_end.close()
    namespaces.join_namespaces(supervisor)
    confinement.forbid_tracing()
    program_process.prepare_process(settings)
    confinement.die_with_parent()
    rehearse(settings)
    our_end.send(b"r")
    while answer_request(our_end, settings):
        pass
    os._exit(0)


def rehearse(settings):
    """Answer requests that run no program, until more of them no longer change this process.

    Python and libc keep freed memory in lists that grow at first. Their lengths would show how many
    runs came before.
    """
    our_end, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with our_end, other_end:
        for number in reversed(range(REHEARSALS)):
            socket.send_fds(other_end, [_REHEARSAL], range(5))
            if number < REHEARSED_FORKS:
                answer_request(our_end, settings)
                other_end.recv(packets.MAX_PACKET_BYTES)
            else:
                close_all(receive_request(our_end)[1])


def answer_request(channel, settings):
    """Fork a program for the next request, and reply with how it ended.

    A request comes with the program's descriptors and one for its report. The reply is its exit
    code (negative: a signal), its CPU seconds and its largest resident size in bytes. A request
    without descriptors asks for pytest, for all later runs. Returns whether there was a request:
    False once ``channel`` is closed.
    """
    size, descriptors = receive_request(channel)
    if not size:
        return False
    if not descriptors:
        pytest_runner.preload_pytest()
        channel.send(b"p")
        return True
    program = fork_plainly()
    if program == 0:
        request = marshal.loads(_request)
        if request is None:
            os._exit(0)
        threading.main_thread()._set_native_id()
        *descriptors, ready = descriptors
        program_process.become_program(settings, request, descriptors, ready)
    close_all(descriptors)
    random.seed()  # of the next program, while this one runs
    channel.send(marshal.dumps(program_process.wait_for_end(program)))
    return True


def receive_request(channel):
    """Receive a request into :data:`_request`; return its size and its descriptors."""
    _request[:] = _NO_REQUEST
    return packets.receive_packet(channel, _request)


def close_all(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def fork_plainly():
    """Fork like :func:`os.fork`, but without what Python does for processes with several threads.

    That would renew locks, none of which is held here, and tables of threads: half of the time of a
    fork. The functions that modules let Python call in a new process do the same (``threading``,
    ``logging``), but for that of ``random``, which seeds anew: :func:`answer_request` does.

    Raises:
        OSError: there are too many processes.
    """
    return namespaces.check_result(_libc.fork(), "fork")
