"""Machines and containers on which a sandbox may not start, made of this one, for tests of root.

bubblewrap arranges the files; the rest (user, refused calls, an old Landlock, a limit of user
namespaces) is done by this file as a script, in the last process before the command.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INSIDE = REPOSITORY / "verl_pipeline/sandbox/inside"
# What Docker's default profile leaves to CAP_SYS_ADMIN, and pivot_root, which it never has
# (moby/profiles, seccomp/default.json).
NAMESPACE_CALLS = ("unshare", "setns", "mount", "umount2", "mount_setattr", "open_tree")
NAMESPACE_CALLS += ("move_mount", "fsopen", "fsconfig", "fsmount", "fspick")
DOCKER_PROFILE = (*NAMESPACE_CALLS, "pivot_root", "clone namespaces")
# What Docker masks in /proc (moby, daemon/pkg/oci/defaults.go); a kernel has some of them.
MASKED_FILES = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list")
MASKED_FOLDERS = ("/proc/acpi", "/proc/asound", "/proc/scsi")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx")
LANDLOCK_VERSION_CALL = 444


@dataclass(frozen=True)
class Machine:
    """What differs from this machine.

    Attributes:
        user: id of the user who runs the command; 0: root.
        dropped: capabilities that root lacks.
        only_root: the command runs in a user namespace that has no user but root.
        marks: files in ``/`` or ``/run`` that say in which container this is.
        variables: of the environment; one with the value None is removed.
        hidden: folders that are empty; everybody may write to them.
        masked_proc: parts of ``/proc`` are covered.
        refused: names of system calls that fail with EPERM, or as "name=ERRNO".
        landlock_abi: version that Landlock seems to have.
        user_namespaces: how many there may be.
        read_only: folders that cannot be written to.
        shm_bytes: size of ``/dev/shm``; 0: there is none.
    """

    user: int = 60990  # as UNPRIVILEGED_ID of launch_command
    dropped: tuple[str, ...] = ()
    only_root: bool = False
    marks: tuple[str, ...] = ()
    variables: dict[str, str | None] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    masked_proc: bool = False
    refused: tuple[str, ...] = ()
    landlock_abi: int | None = None
    user_namespaces: int | None = None
    read_only: tuple[str, ...] = ()
    shm_bytes: int | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository, on this machine."""
        from verl_pipeline.sandbox.launch_command import find_bubblewrap

        outer = [str(find_bubblewrap()), *self._arrange_files(), "--chdir", str(REPOSITORY)]
        for name, value in {"HOME": "/tmp", **self.variables}.items():
            outer += ["--unsetenv", name] if value is None else ["--setenv", name, value]
        enter = [sys.executable, "-I", __file__, json.dumps(asdict(self))]
        return subprocess.run([*outer, *enter, *command], capture_output=True, text=True)

    def _arrange_files(self) -> list[str]:
        """Interpreter and repository stay at their paths, but are readable for everybody."""
        options = ["--die-with-parent"]
        options += [word for name in self.dropped for word in ("--cap-drop", name)]
        if self.only_root:
            options += ["--unshare-user", "--uid", "0", "--gid", "0"]
        for entry in sorted(Path("/").iterdir()):
            if entry.is_symlink():
                options += ["--symlink", os.readlink(entry), str(entry)]
            elif entry == Path("/run"):  # marks lie there, and must not be made on this machine
                options += ["--tmpfs", "/run"]
            elif entry.is_dir():
                options += ["--dev-bind", str(entry), str(entry)]
        for mark in self.marks:
            options += ["--ro-bind", "/dev/null", mark]
        paths = (Path(path).resolve() for path in (sys.base_prefix, sys.prefix, REPOSITORY))
        needed = dict.fromkeys(map(str, paths))
        options += ["--perms", "0755", "--tmpfs", "/root"]
        parents = dict.fromkeys(
            parent for path in needed for parent in reversed(Path(path).parents)
        )
        inside = [str(parent) for parent in parents if Path("/root") in parent.parents]
        options += [word for path in inside for word in ("--perms", "0755", "--dir", path)]
        options += [word for path in needed for word in ("--ro-bind", path, path)]
        if self.masked_proc:
            files = [path for path in MASKED_FILES if Path(path).exists()]
            options += [word for path in files for word in ("--ro-bind", "/dev/null", path)]
            folders = [path for path in MASKED_FOLDERS if Path(path).is_dir()]
            options += [word for path in folders for word in ("--tmpfs", path)]
        if self.shm_bytes:
            options += ["--perms", "1777", "--size", str(self.shm_bytes), "--tmpfs", "/dev/shm"]
        elif self.shm_bytes == 0:
            options += ["--tmpfs", "/dev"]
            paths = [f"/dev/{name}" for name in DEVICES]
            options += [word for path in paths for word in ("--dev-bind", path, path)]
        for folder in self.hidden:
            options += ["--perms", "1777", "--tmpfs", folder]
        for folder in self.read_only:
            options += ["--ro-bind", folder, folder]
        return options


def enter(machine: dict, command: list[str]) -> None:
    """Change this process as ``machine`` says and execute the command."""
    sys.path.insert(0, str(INSIDE))
    import confinement
    import namespaces

    if user := machine["user"]:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        confinement.allow_tracing()
    if (limit := machine["user_namespaces"]) is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        namespaces.check_result(libc.unshare(namespaces.CLONE_NEWUSER), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            *((f"{k}id_map", f"{user} {user} 1") for k in "ug"),
        ):
            namespaces.write_kernel_file(f"/proc/self/{name}", text)
        namespaces.write_kernel_file("/proc/sys/user/max_user_namespaces", str(limit))
    if machine["refused"]:
        confinement.forbid_new_privileges()
        confinement.install_seccomp_filter(compile_refusals(machine["refused"]))
    if machine["landlock_abi"] is not None:
        answer_landlock(machine["landlock_abi"])
    os.execv(command[0], command)


def compile_refusals(refused: list[str]) -> bytes:
    """A filter that refuses the named calls."""
    import errno

    import syscalls

    machine = os.uname().machine
    column = list(syscalls.ARCHITECTURES).index(machine)
    numbers = syscalls.REFUSED_CALLS | syscalls.UNAVAILABLE_CALLS
    numbers |= {"landlock_create_ruleset": (444, 444), "setresuid": (117, 147)}
    pack = syscalls._pack_instruction
    program = [pack(syscalls._LOAD, syscalls._NUMBER)]
    for entry in refused:
        name, _, error = entry.partition("=")
        refuse = pack(syscalls._RETURN, syscalls._ERRNO | getattr(errno, error or "EPERM"))
        if name == "clone namespaces":
            program += [
                pack(syscalls._EQUAL, numbers["clone3"][column], 0, 1),
                pack(syscalls._RETURN, syscalls._ERRNO | errno.ENOSYS),
                pack(syscalls._EQUAL, syscalls.CLONE_NUMBERS[machine], 0, 4),
                pack(syscalls._LOAD, syscalls._FIRST_ARGUMENT),
                pack(syscalls._ANY_BIT, syscalls._NEW_NAMESPACES & 0x7FFFFFFF, 0, 1),
                refuse,
                pack(syscalls._RETURN, syscalls._ALLOW),
            ]
        else:
            program += [pack(syscalls._EQUAL, numbers[name][column], 0, 1), refuse]
    return b"".join([*program, pack(syscalls._RETURN, syscalls._ALLOW)])


def answer_landlock(abi: int) -> None:
    """From here on, another process answers which version Landlock has (seccomp_unotify(2))."""
    import confinement
    import syscalls

    ours, theirs = socket.socketpair()
    command = os.fork()
    if command:  # this process stays behind and answers
        listener = socket.recv_fds(ours, 1, 1)[1][0]
        if os.fork():
            _, status = os.waitpid(command, 0)
            os._exit(os.waitstatus_to_exitcode(status))
        os.setsid()
        serve_version(listener, abi)
    pack = syscalls._pack_instruction
    third_argument, notify = 32, 0x7FC00000
    program = b"".join(
        [
            pack(syscalls._LOAD, syscalls._NUMBER),
            pack(syscalls._EQUAL, LANDLOCK_VERSION_CALL, 0, 3),
            pack(syscalls._LOAD, third_argument),
            pack(syscalls._EQUAL, confinement.LANDLOCK_CREATE_RULESET_VERSION, 0, 1),
            pack(syscalls._RETURN, notify),
            pack(syscalls._RETURN, syscalls._ALLOW),
        ]
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    confinement.forbid_new_privileges()
    number = syscalls.REFUSED_CALLS["seccomp"][
        list(syscalls.ARCHITECTURES).index(os.uname().machine)
    ]
    # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
    listener = ctypes.CDLL(None, use_errno=True).syscall(number, 1, 8, fprog)
    assert listener >= 0, os.strerror(ctypes.get_errno())
    socket.send_fds(theirs, [b"l"], [listener])
    os.close(listener)


def serve_version(listener: int, abi: int) -> None:
    """Answer until nobody is left who could ask."""
    receive, send = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
    while True:
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, receive, request)
            (number,) = struct.unpack_from("Q", request)
            fcntl.ioctl(listener, send, struct.pack("QqiI", number, abi, 0, 0))
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]), sys.argv[2:])
