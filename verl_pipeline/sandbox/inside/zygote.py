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

import json
import os
import socket

import confinement
import namespaces
import packets
import program_process


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
    program_process.drop_privileges(settings)
    confinement.die_with_parent()
    serve_forks(our_end, settings)
    os._exit(0)


def serve_forks(channel, settings):
    """Fork a program for each request, and reply with how it ended, until ``channel`` is closed.

    A request comes with the program's descriptors and one for its report. The reply is its exit
    code (negative: a signal), its CPU seconds and its largest resident size in bytes.
    """
    while True:
        data, descriptors = packets.receive_packet(channel)
        if not data:
            return
        program = os.fork()
        if program == 0:
            *descriptors, ready = descriptors
            program_process.become_program(settings, json.loads(data), descriptors, ready)
        for descriptor in descriptors:
            os.close(descriptor)
        packets.send_reply(channel, program_process.wait_for_end(program))
