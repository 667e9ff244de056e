"""Linux calls that confine a program: namespaces and mounts of its own, Landlock, limits. By
ctypes, no package.

Loaded inside the jail only. Every call that fails raises: a program that cannot be confined does
not run.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import subprocess

import syscalls

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_REC, MS_PRIVATE = 2, 4, 8, 0x400, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
# include/uapi/linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
# include/uapi/linux/landlock.h
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read file, read dir
_SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets, signals (ABI 6)
# syscall numbers are the same on x86_64 and aarch64 from 424 on
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def fork_into_namespaces():
    """Like :func:`os.fork`; the child is process 1 in user, pid and mount namespaces of its own,
    its ids stay the same.

    One process less than by unshare(2), which leaves the caller outside of the pid namespace. The
    jail's IPC namespace is shared: seccomp refuses all that is in it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | signal.SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    child = _libc.syscall(syscalls.CLONE[os.uname().machine], flags, 0, 0, 0, 0)
    if child != 0:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        return _check(child, "clone")
    ctypes.pythonapi.PyOS_AfterFork_Child()
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        write(f"/proc/self/{name}", text)
    return 0


def write(path, text):
    """Write a small file of the kernel's; :func:`open` costs a new process a tenth of a run."""
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def mount_proc():
    """``/proc`` of this pid namespace."""
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount / private")
    _check(
        _libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
        "mount /proc",
    )


def mount_scratch(path, size, inodes):
    """A new, empty tmpfs at ``path`` of ``size`` bytes and ``inodes`` files."""
    options = f"size={size},nr_inodes={inodes},mode=700".encode()
    _check(
        _libc.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, options),
        f"mount {path}",
    )


def begin_process_ids():
    """The next process id of this namespace is the first again, where the kernel allows it: they
    would count runs.
    """
    with contextlib.suppress(OSError):
        write("/proc/sys/kernel/ns_last_pid", "1")


def unmount(path):
    """Take a mount away."""
    _check(_libc.umount2(path.encode(), MNT_DETACH), f"umount {path}")


def undumpable():
    """Nobody without rights may trace this process or read its memory."""
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def dumpable():
    """Owner of its own ``/proc/self`` again, after a change of ids."""
    _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent():
    """Be killed when the parent ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def landlock_abi():
    """Version of Landlock, 0 where there is none."""
    return max(
        0, _libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    )


def landlock_rules(abi, readable, writable):
    """Read below ``readable`` and write below ``writable`` only; no signals and sockets to the
    outside.

    Each argument is a list of paths that exist; what is mounted below one later belongs to it.
    Returns a descriptor for :func:`landlock`.
    """
    rights = (
        1 << (13 + (abi > 1) + (abi > 2) + (abi > 4))
    ) - 1  # 13, 14 (refer), 15 (truncate), 16 (device ioctl)
    scopes = _SCOPES if abi > 5 else 0
    attribute = struct.pack("=QQQ", rights, 0, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _check(
        _libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attribute, len(attribute), 0), "landlock"
    )
    for paths, allowed in ((readable, _READ), (writable, rights)):
        for path in paths:
            beneath = os.open(path, os.O_PATH)
            here = (
                allowed if os.path.isdir(path) else allowed & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 14)
            )
            rule = struct.pack("=Qi", here & rights, beneath)
            _check(
                _libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0),
                f"rule {path}",
            )
            os.close(beneath)
    return ruleset


def landlock(rules):
    """From now on ``rules`` hold, for this process and all it starts."""
    _check(_libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")


def no_new_privileges():
    """What seccomp and Landlock ask for."""
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def drop_capabilities():
    """Give up all rights over the namespaces it is in; after :func:`no_new_privileges` for good."""
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _check(_libc.capset(header, none), "capset")


def seccomp(program):
    """Install a compiled filter: ``struct sock_filter`` records, for this process and all it
    starts.
    """
    buffer = ctypes.create_string_buffer(program, len(program))

    class Fprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    fprog = Fprog(len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.prctl(22, 2, ctypes.byref(fprog), 0, 0), "PR_SET_SECCOMP")


def limits(cpu_s, memory, output, processes, files):
    """Hard limits: whole CPU seconds, bytes of address space and of a file, processes of this user,
    descriptors.

    ``memory`` is the program's own: what the warm interpreter has mapped already is added.
    """
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    mapped = int(os.read(descriptor, 100).split()[0]) * resource.getpagesize()
    os.close(descriptor)
    for what, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory + mapped),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 1),  # 0 still starts a helper of the machine's, if it has one
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        resource.setrlimit(what, (value, value))


def worth_killing():
    """If memory runs out, the kernel shall take this process first."""
    write("/proc/self/oom_score_adj", "1000")


def adopt_orphans():
    """Without a pid namespace: become the parent of descendants whose parents have ended."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def descendants(pid):
    """Process ids below ``pid``, without a pid namespace."""
    found, todo = [], [pid]
    while todo:
        try:
            parent = todo.pop()
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                children = list(map(int, file.read().split()))
        except OSError:
            continue
        found += children
        todo += children
    return found


def remove_below(folder):
    """Without a mount namespace: empty ``folder``, of locked folders too, and of those too deep for
    any path.
    """
    os.chmod(folder, 0o700)
    if os.listdir(folder):
        unlock = [
            "-type",
            "d",
            "-execdir",
            "/bin/chmod",
            "700",
            "{}",
            ";",
        ]  # before find(1) goes in
        subprocess.run(["/usr/bin/find", folder, "-mindepth", "1", *unlock], check=False)
        subprocess.run(["/usr/bin/find", folder, "-mindepth", "1", "-delete"], check=True)


def threads_of_user():
    """All threads of this user on the machine: without a user namespace the limit of processes
    counts them.
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
