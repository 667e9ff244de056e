"""Tries, one by one, the calls of the kernel that the sandbox needs, and reports the first refused.

A script of its own, ``python -I -S kernel_trials.py <folder "inside"> <id of the unprivileged user
or ->``: each trial runs in a process that ends with it. It prints one JSON object:

* ``refused``: ``{"step", "errno", "error"}`` of the first step of the tier ``namespaces`` that the
  kernel refused, or null;
* ``landlock``: the version of its ABI, 0 if there is none; ``landlock_errno`` says why;
* ``seccomp``: null, or why a filter cannot be installed;
* ``waits``: whether the kernel tells how long a thread waited for a CPU.

Invariants:
* The steps are those of bubblewrap and of the jail, in their order (:mod:`.launch_command`,
  :mod:`.inside.namespaces`).
* Nothing outside of the trial's own namespaces is changed.
"""

import ctypes
import json
import os
import sys
from contextlib import contextmanager

# The steps, in the order in which they are tried.
ROOT_MOUNTS = "mounts of root"
DROP_ROOT = "dropping root"
USER_NAMESPACE = "user namespace"
USER_MAP = "user map"
NAMESPACES = "other namespaces"
MOUNTS = "mounts"
PROC = "mount of /proc"
PIVOT_ROOT = "pivot_root"
NESTED = "nested namespaces"

# CLONE_NEW*: NS, CGROUP, UTS, IPC, PID, NET (include/uapi/linux/sched.h)
_OTHER_NAMESPACES = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_EMPTY_FOLDER = "/tmp"
_libc = ctypes.CDLL(None, use_errno=True)


class _Refused(Exception):
    pass


@contextmanager
def _trying(step, report):
    try:
        yield
    except OSError as error:
        refused = {"step": step, "errno": error.errno, "error": str(error)}
        os.write(report, json.dumps(refused).encode())
        raise _Refused from error


def try_namespaces(report, user_id):
    """Take the steps of the tier ``namespaces``; write the refused one to ``report``.

    ``user_id``: of the unprivileged user that root becomes, or None if the judge is not root.
    """
    import confinement
    import namespaces

    check = namespaces.check_result
    uid, gid = os.getuid(), os.getgid()
    if user_id is not None:
        with _trying(ROOT_MOUNTS, report):
            check(_libc.unshare(namespaces.CLONE_NEWNS), "unshare")
            _mount_private(namespaces)
            check(_libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None), "mount tmpfs on /mnt")
        with _trying(DROP_ROOT, report):
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
        uid = gid = user_id
        # Files in /proc of a process that changed its user belong to root.
        confinement.allow_tracing()
    with _trying(USER_NAMESPACE, report):
        check(_libc.unshare(namespaces.CLONE_NEWUSER), "unshare")
    with _trying(USER_MAP, report):
        namespaces.write_kernel_file("/proc/self/setgroups", "deny")
        _map_user(namespaces, f"0 {uid} 1", f"0 {gid} 1")
    with _trying(NAMESPACES, report):
        check(_libc.unshare(_OTHER_NAMESPACES), "unshare")
    with _trying(MOUNTS, report):
        _mount_private(namespaces)
        folder = _EMPTY_FOLDER.encode()
        check(_libc.mount(b"tmpfs", folder, b"tmpfs", 0, None), f"mount tmpfs on {_EMPTY_FOLDER}")
    _run_in_child(_try_inside, report, namespaces, uid, gid)


def _map_user(namespaces, uid_map, gid_map):
    namespaces.write_kernel_file("/proc/self/uid_map", uid_map)
    namespaces.write_kernel_file("/proc/self/gid_map", gid_map)


def _mount_private(namespaces):
    flags = namespaces.MS_REC | namespaces.MS_PRIVATE
    namespaces.check_result(_libc.mount(None, b"/", None, flags, None), "mount / private")


def _try_inside(report, namespaces, uid, gid):
    """Process 1 of the new pid namespace, which is root in the user namespace."""
    with _trying(PROC, report):
        flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
        mounted = _libc.mount(b"proc", b"/proc", b"proc", flags, None)
        namespaces.check_result(mounted, "mount proc")
    _run_in_child(_try_pivot_root, report, namespaces)
    # bubblewrap makes a second user namespace, in which the program's user is not root.
    with _trying(NESTED, report):
        namespaces.check_result(_libc.unshare(namespaces.CLONE_NEWUSER), "unshare")
        _map_user(namespaces, f"{uid} 0 1", f"{gid} 0 1")
        joined, join = os.pipe()
        child = namespaces.fork_into_namespaces()
    if child:
        with _trying(NESTED, report):
            namespaces.join_namespaces(child)
        os.close(join)
        os.waitpid(child, 0)
        return
    os.close(join)
    with _trying(NESTED, report):
        namespaces.mount_full_proc()
        namespaces.mount_program_proc()
        namespaces.mount_scratch(_EMPTY_FOLDER, 1 << 16, 16)
        namespaces.unmount_path(_EMPTY_FOLDER)
    os.read(joined, 1)  # the parent enters these namespaces, which end with this process


def _try_pivot_root(report, namespaces):
    with _trying(PIVOT_ROOT, report):
        namespaces.check_result(_libc.unshare(namespaces.CLONE_NEWNS), "unshare")
        os.chdir(_EMPTY_FOLDER)
        number = _SYS_PIVOT_ROOT[os.uname().machine]
        namespaces.check_result(_libc.syscall(number, b".", b"."), "pivot_root")
        namespaces.unmount_path(".")


def _run_in_child(function, report, *arguments):
    child = os.fork()
    if child == 0:
        try:
            function(report, *arguments)
        except _Refused:
            pass
        except BaseException as error:
            os.write(report, json.dumps({"step": "?", "errno": 0, "error": repr(error)}).encode())
        os._exit(0)
    os.waitpid(child, 0)


def _read_report(function, *arguments):
    read_end, write_end = os.pipe()
    _run_in_child(function, write_end, *arguments)
    os.close(write_end)
    with open(read_end, "rb") as file:
        text = file.read()
    # The first refusal comes first; after it, other processes may have gone on.
    return json.JSONDecoder().raw_decode(text.decode())[0] if text else None


def _try_seccomp(report):
    import confinement
    import syscalls

    with _trying("seccomp", report):
        confinement.forbid_new_privileges()
        confinement.install_seccomp_filter(syscalls.compile_filter())


def _try_landlock():
    import confinement

    ctypes.set_errno(0)
    abi = confinement.get_landlock_abi()
    return abi, 0 if abi else ctypes.get_errno()


def main():
    sys.path.insert(0, sys.argv[1])
    user_id = None if sys.argv[2] == "-" else int(sys.argv[2])
    seccomp = _read_report(_try_seccomp)
    landlock, landlock_errno = _try_landlock()
    found = {
        "refused": _read_report(try_namespaces, user_id),
        "landlock": landlock,
        "landlock_errno": landlock_errno,
        "seccomp": seccomp and seccomp["error"],
        "waits": os.path.exists("/proc/self/schedstat"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
