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

import confinement
import namespaces
import packets
import program_process

# More than Python's longest list of freed objects of one kind (80, PyList_MAXFREELIST).
REHEARSALS = 100
# More than the blocks of one size that a thread keeps (7, TCACHE_FILL_COUNT of glibc).
REHEARSED_FORKS = 10
_REHEARSAL = marshal.dumps(None)
# Calls keep the interpreter's lock: the child must have it.
_libc = ctypes.PyDLL(None, use_errno=True)


def fork_supervisor(control, settings):
    """Fork a supervisor into namespaces of its own, and become its zygote.

    ``control`` is the supervisor's socket to the judge. Returns, in the supervisor only, its end of
    a socket to the zygote.
    """
    our_end, supervisor_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = namespaces.fork_into_namespaces()
    if supervisor == 0:
        our_end.close()
        confinement.die_with_parent()
        supervisor_end.recv(1)  # while it can be traced, its namespaces can be joined
        return supervisor_end
    supervisor_end.close()
    namespaces.join_namespaces(supervisor)
    our_end.send(b"joined")
    control.close()
    confinement.forbid_tracing()
    program_process.prepare_process(settings)
    confinement.die_with_parent()
    rehearse(settings)
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
                continue
            for descriptor in packets.receive_packet(our_end)[1]:
                os.close(descriptor)


def answer_request(channel, settings):
    """Fork a program for the next request, and reply with how it ended.

    A request comes with the program's descriptors and one for its report. The reply is its exit
    code (negative: a signal), its CPU seconds and its largest resident size in bytes. Returns
    whether there was a request: False once ``channel`` is closed.
    """
    data, descriptors = packets.receive_packet(channel)
    if not data:
        return False
    program = fork_plainly()
    if program == 0:
        if data == _REHEARSAL:
            os._exit(0)
        random.seed()
        *descriptors, ready = descriptors
        program_process.become_program(settings, marshal.loads(data), descriptors, ready)
    for descriptor in descriptors:
        os.close(descriptor)
    channel.send(marshal.dumps(program_process.wait_for_end(program)))
    return True


def fork_plainly():
    """Fork like :func:`os.fork`, but without what Python does for processes with several threads.

    That would renew locks, none of which is held here, and tables of threads: half of the time of a
    fork. Of the functions that modules let Python call in a new process, only those of
    ``threading`` (tables of threads) and ``random`` (seeds anew) exist.

    Raises:
        OSError: there are too many processes.
    """
    return namespaces.check_result(_libc.fork(), "fork")
