"""Linux calls that confine a process for good: Landlock, limits, seccomp, no capabilities.

They are made through ctypes, without further packages. Loaded inside the jail only.

Invariant: every call that fails raises, because a program that cannot be confined must not run.
"""

import ctypes
import os
import resource
import signal
import struct
import subprocess

from namespaces import check_result, write_kernel_file

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
# include/uapi/linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
# include/uapi/linux/landlock.h
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
_READ_RIGHTS = 1 << 0 | 1 << 2 | 1 << 3  # execute, read file, read dir
# Rights that apply to files: execute, write file, read file, truncate.
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
_SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets, signals (ABI 6)
# prctl(2)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
# From 424 on, x86_64 and aarch64 have the same system call numbers.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446


def forbid_tracing():
    """Let no unprivileged process trace this one or read its memory."""
    check_result(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def allow_tracing():
    """Undo :func:`forbid_tracing`, so that the process owns its ``/proc/self`` again."""
    check_result(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent():
    """Ask the kernel to kill this process when its parent ends."""
    check_result(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def get_landlock_abi():
    """Return the version of Landlock, or 0 if the kernel has none."""
    return max(
        0, _libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    )


def build_landlock_rules(abi, readable, writable):
    """Return rules that allow reading below ``readable`` and writing below ``writable`` only.

    They also forbid signals and abstract sockets to processes outside. ``readable`` and
    ``writable`` are lists of existing paths; a rule also covers what is mounted below its path
    later. The result is a descriptor for :func:`apply_landlock`.
    """
    # All rights of the version: 13, then refer (ABI 2), truncate (ABI 3) and device ioctl (ABI 5).
    rights = (1 << (13 + (abi > 1) + (abi > 2) + (abi > 4))) - 1
    scopes = _SCOPES if abi > 5 else 0
    attribute = struct.pack("=QQQ", rights, 0, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = check_result(
        _libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0), "landlock"
    )
    for paths, allowed in ((readable, _READ_RIGHTS), (writable, rights)):
        for path in paths:
            beneath = os.open(path, os.O_PATH)
            granted = allowed if os.path.isdir(path) else allowed & _FILE_RIGHTS
            rule = struct.pack("=Qi", granted & rights, beneath)
            check_result(
                _libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0),
                f"rule {path}",
            )
            os.close(beneath)
    return ruleset


def apply_landlock(rules):
    """Apply ``rules`` to this process and all processes it starts, for good."""
    check_result(_libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")


def forbid_new_privileges():
    """Gain no privileges by execve; seccomp and Landlock require it of unprivileged processes."""
    check_result(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def drop_capabilities():
    """Give up all rights over its namespaces, for good after :func:`forbid_new_privileges`."""
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    check_result(_libc.capset(header, none), "capset")


def install_seccomp_filter(program):
    """Install a compiled filter for this process and all processes it starts.

    ``program`` consists of ``struct sock_filter`` records of 8 bytes.
    """
    buffer = ctypes.create_string_buffer(program, len(program))

    class Fprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    fprog = Fprog(len(program) // 8, ctypes.addressof(buffer))
    check_result(
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(fprog), 0, 0),
        "PR_SET_SECCOMP",
    )


class LimitTooLow(Exception):
    """This process, and so the judge, has a hard limit below what programs are allowed."""


def set_resource_limits(cpu_s, memory, output, processes, files):
    """Set hard limits.

    Raises:
        LimitTooLow: one of this process is lower; the message names it.

    Args:
        cpu_s: whole CPU seconds.
        memory: bytes of address space, in addition to what the warm interpreter has mapped.
        output: bytes of each file.
        processes: processes and threads of this user.
        files: descriptors.
    """
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    mapped = int(os.read(descriptor, 100).split()[0]) * resource.getpagesize()
    os.close(descriptor)
    for name, value in (
        ("CPU", cpu_s),
        ("AS", memory + mapped),
        ("FSIZE", output),
        ("NPROC", processes),
        ("NOFILE", files),
        ("CORE", 1),  # with 0 the kernel would still start a core pattern's helper
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
        ("SIGPENDING", 256),
    ):
        resource_id = getattr(resource, f"RLIMIT_{name}")
        try:
            resource.setrlimit(resource_id, (value, value))
        except ValueError:
            hard = resource.getrlimit(resource_id)[1]
            raise LimitTooLow(
                f"RLIMIT_{name} has the hard limit {hard} here, and this program's limit is "
                f"{value}: start the command with a higher one (ulimit -H, or the job's settings)"
            ) from None


def set_default_stack_size(size):
    """Set the stack of threads of which nobody sets the size, in bytes.

    By default it is the limit of the main thread's stack, or 2 MiB if that has no limit.
    """
    attributes = ctypes.create_string_buffer(64)  # pthread_attr_t of glibc: 56 or 64 bytes
    _libc.pthread_attr_init(attributes)
    error = _libc.pthread_attr_setstacksize(
        attributes, ctypes.c_size_t(size)
    ) or _libc.pthread_setattr_default_np(attributes)
    if error:
        raise OSError(error, f"default stack size: {os.strerror(error)}")


def prefer_for_oom_kill():
    """Ask the kernel to kill this process first if the machine runs out of memory."""
    write_kernel_file("/proc/self/oom_score_adj", "1000")


def adopt_orphans():
    """Become the parent of descendants whose parents have ended, without a pid namespace."""
    check_result(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def list_descendants(pid):
    """Return the process ids below ``pid``, without a pid namespace."""
    descendants, remaining = [], [pid]
    while remaining:
        try:
            parent = remaining.pop()
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                children = list(map(int, file.read().split()))
        except OSError:
            continue
        descendants += children
        remaining += children
    return descendants


def empty_folder(folder):
    """Remove everything in ``folder``, without a mount namespace.

    Folders may lack permissions, or be nested too deep for any path: find(1) removes them.
    """
    os.chmod(folder, 0o700)
    if os.listdir(folder):
        # -execdir changes the permissions of a folder before find enters it.
        unlock = ["-type", "d", "-execdir", "/bin/chmod", "700", "{}", ";"]
        subprocess.run(["/usr/bin/find", folder, "-mindepth", "1", *unlock], check=False)
        subprocess.run(["/usr/bin/find", folder, "-mindepth", "1", "-delete"], check=True)


def count_user_threads():
    """Count all threads of this user on the machine.

    Without a user namespace, the limit of processes counts them too.
    """
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count
