"""What the sandbox finds on this machine beyond what it cannot do without.

Whether a tier works at all is found by grading (:mod:`verl_pipeline.grading.sandbox_trial`).

Invariants:
* Each finding comes from trying or from reading what the kernel says now.
* Nothing here is missing: what a tier cannot do without stops its trial. The lack of what is
  examined here makes it weaker, or blind to something, and the finding says how.
"""

import os
from pathlib import Path
from typing import Any

import psutil

from verl_pipeline.findings import Finding, State
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.sandbox.cgroup import CGROUP_ROOT, WorkerCgroups
from verl_pipeline.sandbox.launch_command import find_bubblewrap
from verl_pipeline.sandbox.run_outcome import RunLimits, SandboxError
from verl_pipeline.sandbox.start_failures import SCOPES_ABI, describe_landlock, try_kernel

_CONTROLLERS = ("memory", "pids")


def examine_requirements() -> list[Finding]:
    """Return what makes the local tiers weaker or stronger here."""
    try:
        allowed = try_kernel()
    except SandboxError as error:
        return [Finding("sandbox: kernel", State.LIMITED, str(error))]
    return [
        _examine_bubblewrap(),
        _examine_landlock(allowed),
        _examine_seccomp(allowed),
        _examine_cgroups(),
        _examine_waits(allowed),
        _examine_memory(),
    ]


def _examine_bubblewrap() -> Finding:
    topic = "sandbox: bubblewrap"
    try:
        return Finding(topic, State.OK, str(find_bubblewrap()))
    except SandboxError as error:
        return Finding(topic, State.LIMITED, error.problem, error.fix, "no tier 'namespaces'")


def _examine_landlock(allowed: dict[str, Any]) -> Finding:
    topic, detail = "sandbox: Landlock", describe_landlock(allowed)
    if allowed["landlock"] >= SCOPES_ABI:
        return Finding(topic, State.OK, detail)
    alone = "signals and abstract sockets" if allowed["landlock"] else "files"
    lost = (
        "no tier 'rlimits'; in the tier 'namespaces' the namespaces alone keep programs from "
        f"{alone} outside, without a second barrier"
    )
    fix = "Linux 6.12 or newer with landlock in lsm=, and a container whose seccomp profile has it"
    return Finding(topic, State.LIMITED, detail, fix, lost)


def _examine_seccomp(allowed: dict[str, Any]) -> Finding:
    if not allowed["seccomp"]:
        return Finding("sandbox: seccomp", State.OK, "filters can be installed")
    fix = "use a kernel with CONFIG_SECCOMP_FILTER"
    return Finding("sandbox: seccomp", State.LIMITED, allowed["seccomp"], fix, "no local tier")


def _examine_cgroups() -> Finding:
    """Make the groups of a worker, and remove them."""
    groups = WorkerCgroups(max_tasks=1)
    try:
        folders = dict(groups.folders)
    finally:
        groups.remove_groups()
    topic, version = "sandbox: control groups", _find_cgroup_version()
    missing = [name for name in _CONTROLLERS if name not in folders]
    if not missing:
        return Finding(topic, State.OK, f"{version}; workers get groups for memory and processes")
    return Finding(
        topic,
        State.LIMITED,
        f"{version}; no group for {' and '.join(missing)} can be created",
        _advise_cgroups(version),
        "what no limit of a process covers (buffers of sockets, memory that nobody has mapped) "
        "counts against the whole job; all other limits hold",
    )


def _find_cgroup_version() -> str:
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        return "version 2"
    if any((CGROUP_ROOT / name).is_dir() for name in _CONTROLLERS):
        return "version 1"
    return f"none at {CGROUP_ROOT}"


def _advise_cgroups(version: str) -> str:
    if version == "version 2":
        return (
            "start the training in a delegated group whose cgroup.subtree_control has memory and "
            "pids, with its processes in a group below it"
        )
    return "run as root, with a writable /sys/fs/cgroup"


def _examine_waits(allowed: dict[str, Any]) -> Finding:
    topic = "sandbox: waits for a CPU"
    if allowed["waits"]:
        return Finding(topic, State.OK, "the kernel counts them")
    return Finding(
        topic,
        State.LIMITED,
        "the kernel does not count them (no /proc/self/schedstat)",
        "use a kernel with CONFIG_SCHED_INFO; without one, use fewer workers than CPUs",
        "a program that waits for a CPU looks idle, and may be stopped on a busy machine",
    )


def _examine_memory() -> Finding:
    workers = len(os.sched_getaffinity(0))
    each = RunLimits().memory_bytes / 2**30
    free = min(psutil.virtual_memory().available, _read_memory_limit()) / 2**30
    detail = (
        f"{format_decimal(free)} GiB for {workers} workers (one a CPU) of at most {each:.0f} GiB "
        "each"
    )
    topic = "sandbox: memory"
    if free >= workers * each:
        return Finding(topic, State.OK, detail)
    return Finding(
        topic,
        State.LIMITED,
        detail,
        "give the code reward fewer workers, or the machine more memory",
        "programs that all use what they may get each other, or the training, killed",
    )


def _read_memory_limit() -> int:
    """Return the limit of this container or job in bytes, or a huge number."""
    folders = {CGROUP_ROOT, CGROUP_ROOT / "memory"}
    for line in _read_text(Path("/proc/self/cgroup")).splitlines():
        _number, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):  # version 2, or 1
            group = (CGROUP_ROOT / "memory" if controllers else CGROUP_ROOT) / path.lstrip("/")
            folders |= {group, *group.parents}
    names = ("memory.max", "memory.limit_in_bytes")
    texts = (_read_text(folder / name) for folder in folders for name in names)
    return min((int(text) for text in texts if text.isdigit()), default=1 << 62)


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
