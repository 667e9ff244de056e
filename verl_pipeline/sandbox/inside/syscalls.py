"""The system calls a program may not make, as a compiled seccomp filter.

A list of what is refused, not of what is allowed: interpreters and numpy use many calls, and
namespaces, Landlock and the missing rights already stand behind most of these. Refused calls fail
with EPERM, as they do for a user without rights; those that libc tries before an older one, and all
that are newer than this list, fail with ENOSYS, so that the older one is taken.

Numbers: Linux ``unistd_64.h`` of x86_64 and the generic table of aarch64.
"""

import errno
import os
import struct

# name: (x86_64, aarch64); None where the architecture has no such call.
REFUSED = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # networks: a socket pair, with buffers of the default size, is all that asyncio needs
    "socket": (41, 198),
    "setsockopt": (54, 208),
    "bind": (49, 200),
    "connect": (42, 203),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that no limit of ours sees
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # keyrings, which namespaces do not part
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the kernel and the machine
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "flock": (73, 32),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "seccomp": (317, 277),
    # more of the processors than its share; less of them would make its slowness look like the
    # machine's
    "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
# Allowed if the first argument is 0, which means the caller: setrlimit is this call.
FOR_ITSELF = {"prlimit64": (302, 261)}
# Of sockets that can send to any address, as those of datagrams, not even pairs: second argument
# SOCK_DGRAM.
SOCKET_PAIR, _DATAGRAM, _KIND_BITS = (53, 199), 2, 0xF
NOT_THERE = {"clone3": (435, 435)}
# Linux 6.10 (mseal): calls that came later have not been looked at.
NEWEST = 462
CLONE = {"x86_64": 56, "aarch64": 220}
# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 (include/uapi/linux/audit.h)
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# CLONE_NEW*: TIME, NS, CGROUP, UTS, IPC, USER, PID, NET
_NEW_NAMESPACES = (
    0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_AND = 0x54
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24


def _instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def compiled(machine=None):
    """The filter for ``machine`` (this one's by default).

    Raises:
        RuntimeError: no numbers are known for it.
    """
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        raise RuntimeError(
            f"no seccomp filter for {machine}; there is one for {', '.join(ARCHITECTURES)}"
        )
    column = list(ARCHITECTURES).index(machine)
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),  # 32-bit calls have other numbers
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":  # x32 calls have this bit
        program += [_instruction(_AT_LEAST, 0x40000000, 0, 1), _instruction(_RETURN, _KILL)]
    for table, error in ((REFUSED, errno.EPERM), (NOT_THERE, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] is not None:
                program += [
                    _instruction(_EQUAL, numbers[column], 0, 1),
                    _instruction(_RETURN, _ERRNO | error),
                ]
    program += [
        _instruction(_AT_LEAST, NEWEST + 1, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for numbers in FOR_ITSELF.values():
        program += [
            _instruction(_EQUAL, numbers[column], 0, 4),
            _instruction(_LOAD, _FIRST_ARGUMENT),
            _instruction(_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _ERRNO | errno.EPERM),
            _instruction(_RETURN, _ALLOW),
        ]
    program += [
        _instruction(_EQUAL, SOCKET_PAIR[column], 0, 5),
        _instruction(_LOAD, _SECOND_ARGUMENT),
        _instruction(_AND, _KIND_BITS),
        _instruction(_EQUAL, _DATAGRAM, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    program += [
        _instruction(_EQUAL, CLONE[machine], 0, 3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)
