"""Why a sandbox does not start here, and what to do about it.

Invariants:
* The diagnosis comes from trying what the kernel allows; settings of the kernel and marks of
  containers only explain what was refused.
* An explanation is one line.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from verl_pipeline.sandbox import kernel_trials
from verl_pipeline.sandbox.launch_command import INSIDE_FOLDER, UNPRIVILEGED_ID, find_bubblewrap
from verl_pipeline.sandbox.run_outcome import SandboxError
from verl_pipeline.sandbox.surrounding_container import OTHERWISE, find_container, get_advice

PAGE = "docs/sandbox-requirements.md"
# The first version of Landlock that keeps a program from signalling its judge.
SCOPES_ABI = 6
_TRIALS_TIMEOUT_S = 60.0
_KERNEL_SETTINGS = Path("/proc/sys")
_TAIL_CHARACTERS = 300


def try_kernel() -> dict[str, Any]:
    """Return what the kernel allows, as :mod:`.kernel_trials` prints it.

    Raises:
        SandboxError: the trials themselves cannot run.
    """
    user = str(UNPRIVILEGED_ID) if os.getuid() == 0 else "-"
    command = [sys.executable, "-I", "-S", kernel_trials.__file__, str(INSIDE_FOLDER), user]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TRIALS_TIMEOUT_S, check=True
        )
        return json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        raise SandboxError(f"what the kernel allows cannot be tried: {error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise SandboxError(f"what the kernel allows cannot be tried: {error}") from error


def explain_start_failure(tier: str, reason: str) -> SandboxError:
    """Return the error to raise for a sandbox of ``tier`` that failed because of ``reason``.

    If the kernel refuses nothing that the tier needs, the error has ``reason``.
    """
    shown = " ".join(reason.split()).removesuffix("; its output:")
    shown = shown if len(shown) <= _TAIL_CHARACTERS else f"...{shown[-_TAIL_CHARACTERS:]}"
    problem = f"the sandbox (tier '{tier}') does not work here: "
    try:
        allowed = try_kernel()
    except SandboxError as error:
        return SandboxError(f"{problem}{shown} ({error})", f"see {PAGE}")
    if allowed["seccomp"]:
        cause = f"no seccomp filter can be installed ({allowed['seccomp']})"
        fix = f"use a kernel with CONFIG_SECCOMP_FILTER, {OTHERWISE}"
    elif tier == "namespaces" and allowed["refused"]:
        cause, fix = explain_refusal(**allowed["refused"])
    elif tier == "rlimits" and allowed["landlock"] < SCOPES_ABI:
        cause = f"{describe_landlock(allowed)}, but this tier needs ABI {SCOPES_ABI} (Linux 6.12)"
        fix = "use the tier 'namespaces' or 'remote'"
    else:
        return SandboxError(problem + shown, f"see {PAGE}")
    return SandboxError(problem + cause, f"{fix}; {PAGE}")


def describe_landlock(allowed: dict[str, Any]) -> str:
    """Return what :func:`try_kernel` found of Landlock."""
    if allowed["landlock"]:
        return f"Landlock has ABI {allowed['landlock']}"
    reasons = {
        errno.ENOSYS: "the kernel has none, or a seccomp filter hides it",
        errno.EOPNOTSUPP: "it is not among the kernel's active modules (lsm=)",
        errno.EPERM: "a seccomp filter forbids it",
    }
    number = allowed["landlock_errno"]
    return f"there is no Landlock ({reasons.get(number, os.strerror(number))})"


def explain_refusal(step: str, errno: int, error: str) -> tuple[str, str]:
    """Return the cause and the fix of a refused step of :mod:`.kernel_trials`."""
    container = find_container()
    place = f"; this looks like {container}" if container else ""
    explain = {
        kernel_trials.ROOT_MOUNTS: _explain_root_mounts,
        kernel_trials.DROP_ROOT: _explain_drop_root,
        kernel_trials.USER_NAMESPACE: _explain_user_namespace,
        kernel_trials.NESTED: _explain_user_namespace,
        kernel_trials.PROC: _explain_proc,
    }.get(step, _explain_denied_rights)
    cause, fix = explain(errno, container)
    return f"{cause} ({step}: {error}{place})", fix


def _explain_root_mounts(_number: int, container: str) -> tuple[str, str]:
    return (
        "root may not mount (no CAP_SYS_ADMIN, or a seccomp filter)",
        f"run as a user other than root, or with CAP_SYS_ADMIN: {get_advice(container)}",
    )


def _explain_drop_root(_number: int, container: str) -> tuple[str, str]:
    return (
        f"root may not become the unprivileged user {UNPRIVILEGED_ID}: CAP_SETUID or CAP_SETGID is "
        "missing, or the user namespace has no such user (unshare -r, --fakeroot)",
        "run as a user other than root, or map at least 65536 user ids (/etc/subuid)",
    )


def _explain_user_namespace(number: int, container: str) -> tuple[str, str]:
    if number == errno.ENOSPC:
        return (
            f"user.max_user_namespaces={_read_setting('user/max_user_namespaces')} is reached",
            "sudo sysctl -w user.max_user_namespaces=15000 on the host",
        )
    if _read_setting("kernel/unprivileged_userns_clone") == "0":
        return (
            "kernel.unprivileged_userns_clone=0 forbids user namespaces to ordinary users",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 on the host",
        )
    if number == errno.EINVAL:
        return (
            "the kernel has no user namespaces (CONFIG_USER_NS)",
            f"use another kernel, {OTHERWISE}",
        )
    if _is_chrooted():
        return (
            "the kernel forbids user namespaces to a process in a chroot",
            "enter the folder with a container or pivot_root instead of chroot",
        )
    return _explain_denied_rights(number, container, "a user namespace may not be created")


def _explain_proc(_number: int, container: str) -> tuple[str, str]:
    covered = _list_mounts_below_proc()
    if covered:
        shown = ", ".join(covered[:3])
        cause = f"parts of /proc are masked ({shown}), so no new /proc may be mounted"
        return cause, get_advice(container) if container else f"unmask them, {OTHERWISE}"
    return _explain_denied_rights(errno.EPERM, container, "no new /proc may be mounted")


def _explain_denied_rights(
    _number: int, container: str, cause: str = "a call that it needs is refused"
) -> tuple[str, str]:
    # Docker's seccomp profile refuses before AppArmor is asked.
    is_filtered = _has_seccomp_filter()
    is_restricted = _read_setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
    if is_restricted and not (is_filtered and container):
        return (
            f"{cause}: AppArmor restricts user namespaces "
            "(kernel.apparmor_restrict_unprivileged_userns=1)",
            f"on the host, allow them to {find_bubblewrap()} by an AppArmor profile, or to every "
            "program by sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if is_filtered:
        cause += ": a seccomp filter of what started this process forbids it"
        return cause, get_advice(container)
    profile = _read_text("/proc/self/attr/current")
    if profile and profile != "unconfined":
        cause += f": a security module may forbid it (label {profile})"
    return cause, get_advice(container)


def _read_setting(name: str) -> str:
    return _read_text(_KERNEL_SETTINGS / name)


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace").strip(" \n\0")
    except OSError:
        return ""


def _has_seccomp_filter() -> bool:
    return "Seccomp:\t2" in _read_text("/proc/self/status")


def _is_chrooted() -> bool:
    """Whether no mount of this process is its root."""
    return all(target != "/" for target in _list_mount_targets())


def _list_mounts_below_proc() -> list[str]:
    return [target for target in _list_mount_targets() if target.startswith("/proc/")]


def _list_mount_targets() -> list[str]:
    """Field 5 of each line of proc_pid_mountinfo(5)."""
    return [line.split()[4] for line in _read_text("/proc/self/mountinfo").splitlines()]
