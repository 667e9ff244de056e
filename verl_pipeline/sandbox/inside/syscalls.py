"""The system calls that a program may not make, as a compiled seccomp filter.

The list names refused calls, not allowed ones: interpreters and numpy use many calls, and for most
refused calls namespaces, Landlock and missing capabilities are a second barrier. Refused calls fail
with EPERM, as they do for an unprivileged user. Calls that libc tries before an older one, and all
calls that are newer than this list, fail with ENOSYS, so that libc takes the older one.

Numbers: Linux ``unistd_64.h`` of x86_64 and the generic table of aarch64.
"""

import errno
import os
import struct

# name: (x86_64, aarch64); None where the architecture has no such call.
REFUSED_CALLS = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # networks: asyncio needs no more than a socket pair with buffers of the default size
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
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that none of our limits covers
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
    # keyrings, which namespaces do not separate
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
    # scheduling: a program must not get more than its share of the CPUs, and with less its
    # slowness would look like a busy machine
    "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
# Allowed only if the first argument is 0, the caller itself: libc's setrlimit makes this call.
SELF_ONLY_CALLS = {"prlimit64": (302, 261)}
# Refused if the second argument is SOCK_DGRAM: even paired datagram sockets can send to any
# address.
SOCKET_PAIR, _SOCK_DGRAM, _SOCKET_KIND_BITS = (53, 199), 2, 0xF
# statx tells the number of a mount, which counts all mounts of the machine.
UNAVAILABLE_CALLS = {"clone3": (435, 435), "statx": (332, 291)}
# mseal, Linux 6.10: later calls have not been reviewed.
NEWEST_REVIEWED_CALL = 462
CLONE_NUMBERS = {"x86_64": 56, "aarch64": 220}
# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 (include/uapi/linux/audit.h)
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# CLONE_NEW*: TIME, NS, CGROUP, UTS, IPC, USER, PID, NET
_NEW_NAMESPACES = (
    0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
)
# CLONE_PARENT: the child would not be the program's, but of the process that waits for the program.
_REFUSED_CLONE_FLAGS = _NEW_NAMESPACES | 0x8000
# Refused if the first argument is in this range: process 1, whose CPU time and number among all
# processes of the machine would tell how many runs came before. clock_gettime(2) has the clocks
# of a process as ~pid << 3 and three more bits.
FIRST_PROCESS_CALLS = {
    "clock_gettime": ((228, 113), 0xFFFFFFF0, 0xFFFFFFF7),
    "pidfd_open": ((434, 434), 1, 1),
}
# Classic BPF (include/uapi/linux/bpf_common.h) and seccomp actions (include/uapi/linux/seccomp.h)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_AND = 0x54
# Offsets in struct seccomp_data; arguments are 64 bits, of which the lower half is loaded.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24


def _pack_instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def compile_filter(machine=None):
    """Return the filter for the architecture ``machine`` (this machine's by default).

    Raises:
        RuntimeError: no system call numbers are known for it.
    """
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        raise RuntimeError(
            f"no seccomp filter for {machine}; there is one for {', '.join(ARCHITECTURES)}"
        )
    column = list(ARCHITECTURES).index(machine)
    # A jump skips that many instructions, if true and if false. A block that loads an argument
    # returns in every case, because the accumulator no longer holds the number of the call.
    program = [
        _pack_instruction(_LOAD, _ARCHITECTURE),
        _pack_instruction(_EQUAL, ARCHITECTURES[machine], 1, 0),
        _pack_instruction(_RETURN, _KILL),  # 32-bit calls have other numbers
        _pack_instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":  # x32 calls have this bit
        program += [
            _pack_instruction(_AT_LEAST, 0x40000000, 0, 1),
            _pack_instruction(_RETURN, _KILL),
        ]
    for table, error in ((REFUSED_CALLS, errno.EPERM), (UNAVAILABLE_CALLS, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] is not None:
                program += [
                    _pack_instruction(_EQUAL, numbers[column], 0, 1),
                    _pack_instruction(_RETURN, _ERRNO | error),
                ]
    program += [
        _pack_instruction(_AT_LEAST, NEWEST_REVIEWED_CALL + 1, 0, 1),
        _pack_instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for numbers in SELF_ONLY_CALLS.values():
        program += [
            _pack_instruction(_EQUAL, numbers[column], 0, 4),
            _pack_instruction(_LOAD, _FIRST_ARGUMENT),
            _pack_instruction(_EQUAL, 0, 1, 0),
            _pack_instruction(_RETURN, _ERRNO | errno.EPERM),
            _pack_instruction(_RETURN, _ALLOW),
        ]
    for numbers, first, last in FIRST_PROCESS_CALLS.values():
        program += [
            _pack_instruction(_EQUAL, numbers[column], 0, 5),
            _pack_instruction(_LOAD, _FIRST_ARGUMENT),
            _pack_instruction(_AT_LEAST, first, 0, 2),
            _pack_instruction(_AT_LEAST, last + 1, 1, 0),
            _pack_instruction(_RETURN, _ERRNO | errno.EPERM),
            _pack_instruction(_RETURN, _ALLOW),
        ]
    program += [
        _pack_instruction(_EQUAL, SOCKET_PAIR[column], 0, 5),
        _pack_instruction(_LOAD, _SECOND_ARGUMENT),
        _pack_instruction(_AND, _SOCKET_KIND_BITS),
        _pack_instruction(_EQUAL, _SOCK_DGRAM, 0, 1),
        _pack_instruction(_RETURN, _ERRNO | errno.EPERM),
        _pack_instruction(_RETURN, _ALLOW),
    ]
    program += [
        _pack_instruction(_EQUAL, CLONE_NUMBERS[machine], 0, 3),
        _pack_instruction(_LOAD, _FIRST_ARGUMENT),
        _pack_instruction(_ANY_BIT, _REFUSED_CLONE_FLAGS, 0, 1),
        _pack_instruction(_RETURN, _ERRNO | errno.EPERM),
        _pack_instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)
