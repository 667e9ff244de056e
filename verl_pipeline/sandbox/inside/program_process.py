"""Turns a process that was forked for one run into the program, under its limits.

Invariants:
* No code of the program runs before the process is confined.
* A failure before the program's first instruction can be told from anything that a program can do:
  only then is the report not :data:`CONFINED_MARK` and the CPU seconds used so far.
"""

import gc
import json
import marshal
import os
import signal
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

CONFINED_MARK = b"confined"
# Runs of trusted tests.
_TESTS_KINDS = ("asserts", "pytest")
# Every module of this folder: a program must not find one of them where it expects its own.
JAIL_MODULES = (
    "answer_clock assert_runner blamed_lines call_server channel_peer confinement empty_arrays "
    "exit_codes interpreter_end library_values messages namespaces own_values packets "
    "process_setup program_process program_runner pytest_runner record_table remote_errors "
    "remote_objects solution_module supervisor suppression surroundings syscalls usage_meter "
    "value_codec warm_interpreter zygote"
).split()


def prepare_process(settings):
    """Do what every run needs alike, once for all processes that are forked from this one.

    They inherit it: among other things, this process gives up for good what no program may have.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(settings["scratch"])
    process_setup.open_streams()
    process_setup.hide_jail_modules(JAIL_MODULES)
    # Collections of forks must not write to these objects, whose pages all forks share; and the
    # streams do not belong to the program's objects (:mod:`interpreter_end`).
    gc.freeze()
    confinement.forbid_new_privileges()
    confinement.drop_capabilities()
    confinement.install_seccomp_filter(settings["filter"])


def become_program(settings, request, descriptors, ready):
    """Confine this process, which is a fork of a prepared one, and turn it into the program.

    ``ready`` is the descriptor to which the report goes. The order matters: a restriction may
    forbid the calls of the steps before it. Never returns.
    """
    try:
        confinement.allow_tracing()
        os.setsid()
        os.chdir(settings["scratch"])
        source_file, stdin, stdout, stderr, *extras = descriptors
        if request["kind"] == "serve":
            del extras[1:]  # the clock is the tests'
        # fstat(2) would be slower: its result touches a hundred kilobytes of Python's memory.
        size = os.lseek(source_file, 0, os.SEEK_END)
        prelude, source = marshal.loads(os.pread(source_file, size, 0))
        source = source.removeprefix("\ufeff")  # Python skips a file's byte order mark
        if request["kind"] not in _TESTS_KINDS:  # trusted tests do not fill the memory
            confinement.prefer_for_oom_kill()
        processes = settings["processes"]
        if not settings["namespaces"]:
            processes += confinement.count_user_threads()
        if settings["landlock"]:
            confinement.apply_landlock(settings["rules"])
        confinement.set_resource_limits(
            int(request["cpu_s"]) + 2,
            request["memory"],
            request["output"],
            processes,
            settings["files"],
        )
        if request["kind"] in _TESTS_KINDS:
            # Without namespaces the program can write modules to this folder.
            sys.path.remove(os.getcwd())
        ready = process_setup.place_descriptors(stdin, stdout, stderr, extras, ready)
        os.write(ready, CONFINED_MARK + b" %f" % time.process_time())
        os.close(ready)
    except confinement.LimitTooLow as error:
        os.write(ready, str(error).encode())
        os._exit(1)
    except BaseException:
        os.write(ready, traceback.format_exc().encode())
        os._exit(1)
    code = exit_codes.RAISED
    try:
        code = _execute_request(request, prelude, source)
    finally:
        os._exit(code)


def _execute_request(request, prelude, source):
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


def wait_for_end(pid):
    """Return exit code, CPU seconds and largest resident size in bytes of a child, once it ends.

    Raises:
        ChildProcessError: there is no such child.
    """
    _pid, code, usage = os.wait4(pid, 0)
    # ru_maxrss is in KiB.
    cpu = usage.ru_utime + usage.ru_stime
    return os.waitstatus_to_exitcode(code), cpu, usage.ru_maxrss * 1024
