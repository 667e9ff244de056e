"""A program's own user, pid and mount namespaces, and what is mounted there.

Loaded inside the jail only; the calls are made through ctypes, without further packages.

Invariants:
* Every call that fails raises, because a program that cannot be confined must not run.
* What a program finds mounted is as new as its run: a mount that served an earlier run would show
  its age, and could have been marked (an inode's number, the time of a look-up).
"""

import contextlib
import ctypes
import errno
import os
import signal

import syscalls

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_REC, MS_PRIVATE = 2, 4, 8, 0x400, 0x4000, 0x40000
MNT_DETACH = 2
_PROC_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC


def check_result(result, call):
    """Return ``result`` of a system call; raise OSError if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def write_kernel_file(path, text):
    """Write a small file of the kernel's interface.

    Without :func:`open`, which in a new process takes a tenth of the time of a whole run.
    """
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def fork_into_namespaces():
    """Fork like :func:`os.fork`, but into new user, pid and mount namespaces.

    The child is process 1 there and keeps its user and group ids. unshare(2) would need one more
    process, because it leaves the caller outside of the new pid namespace. The jail's IPC namespace
    is shared: seccomp refuses all calls that use it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | signal.SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    child = _libc.syscall(syscalls.CLONE_NUMBERS[os.uname().machine], flags, 0, 0, 0, 0)
    if child != 0:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        return check_result(child, "clone")
    ctypes.pythonapi.PyOS_AfterFork_Child()
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        write_kernel_file(f"/proc/self/{name}", text)
    return 0


def join_namespaces(pid):
    """Enter the namespaces of ``pid``, a child of :func:`fork_into_namespaces`.

    The caller stays outside of its pid namespace: only processes that the caller forks are inside,
    and see it neither as a process nor as their parent.
    """
    kinds = (("user", CLONE_NEWUSER), ("pid", CLONE_NEWPID), ("mnt", CLONE_NEWNS))
    # All are opened first: in the mount namespace /proc shows other processes.
    opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), flag) for name, flag in kinds]
    for descriptor, flag in opened:
        check_result(_libc.setns(descriptor, flag), "setns")
        os.close(descriptor)


def mount_full_proc():
    """Mount ``/proc`` of this pid namespace; return a path to it that later mounts do not hide."""
    check_result(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount / private")
    check_result(_libc.mount(b"proc", b"/proc", b"proc", _PROC_FLAGS, None), "mount /proc")
    return f"/proc/self/fd/{os.open('/proc', os.O_PATH | os.O_DIRECTORY)}"


def mount_program_proc():
    """Mount a ``/proc`` that shows the program's own processes and nothing of the machine.

    Process 1 is hidden, because its use of the CPU and memory counts the runs; so are the files of
    the whole machine. Before Linux 5.8 both are visible.
    """
    for options in (b"hidepid=invisible,subset=pid", None):
        if _libc.mount(b"proc", b"/proc", b"proc", _PROC_FLAGS, options) == 0:
            return
        if ctypes.get_errno() != errno.EINVAL:
            break
    check_result(-1, "mount /proc")


def mount_scratch(path, size, inodes):
    """Mount a new, empty tmpfs of ``size`` bytes and ``inodes`` files at ``path``."""
    options = f"size={size},nr_inodes={inodes},mode=700".encode()
    check_result(
        _libc.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, options),
        f"mount {path}",
    )


def unmount_path(path):
    """Unmount what is mounted at ``path``."""
    check_result(_libc.umount2(path.encode(), MNT_DETACH), f"umount {path}")


def reset_process_ids(proc):
    """Start the process ids of this namespace anew, where the kernel allows it.

    Otherwise a program could tell from its process id how many runs came before. ``proc`` is the
    path of :func:`mount_full_proc`.
    """
    with contextlib.suppress(OSError):
        write_kernel_file(f"{proc}/sys/kernel/ns_last_pid", "1")
