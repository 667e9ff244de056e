"""Which container or job this process runs in, and how the tier ``namespaces`` is allowed there.

What the advice costs in safety is in ``docs/sandbox-requirements.md``, and which of it was tried in
``docs/grading/how-it-was-tested.md``.

Invariant: the marks of a container choose the words of an advice only. Whether something is missing
is found by trying (:mod:`.kernel_trials`).
"""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

DOCKER, PODMAN, KUBERNETES = "Docker", "Podman", "Kubernetes"
APPTAINER, SLURM, GVISOR, WSL = "Apptainer", "SLURM", "gVisor", "WSL"
# What every advice ends with where nothing can be allowed.
OTHERWISE = (
    "or use a machine that allows it, or the tier 'remote' with a SandboxFusion server elsewhere"
)
_ADVICE = {
    DOCKER: (
        "start the container with --user <not root> --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined --security-opt systempaths=unconfined (as root, add "
        "--cap-add SYS_ADMIN)"
    ),
    PODMAN: (
        "start the container with --user <not root> --security-opt unmask=ALL --security-opt "
        "label=disable (as root, add --cap-add SYS_ADMIN; with Docker's seccomp profile, add "
        "--security-opt seccomp=unconfined)"
    ),
    KUBERNETES: (
        "in the pod set hostUsers: false, in the container's securityContext runAsUser: <not 0>, "
        "procMount: Unmasked, seccompProfile.type: Unconfined and appArmorProfile.type: Unconfined"
    ),
    APPTAINER: (
        "start the training outside of Apptainer, or use an Apptainer without setuid "
        "(--userns) on nodes that allow nested user namespaces, not --fakeroot"
    ),
    SLURM: "ask the cluster's administrators to allow unprivileged user namespaces on the nodes",
    GVISOR: "run the container with another runtime (runc)",
    WSL: "use WSL 2 (wsl --set-version <distribution> 2) with a current kernel (wsl --update)",
}
# SYSLOG_ACTION_READ_ALL of syslog(2).
_READ_ALL = 3


def find_container(environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> str:
    """Return one of the names above, the innermost first; "" if there is no mark of any.

    Args:
        environment: by default this process's.
        root: below which the marks are looked for.
    """
    environment = os.environ if environment is None else environment
    version = _read_text(root / "proc/version")
    # The constant kernel version of gVisor: pkg/sentry/syscalls/linux/linux64.go.
    if "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016" in version or (
        root == Path("/") and b"Starting gVisor" in _read_kernel_log()
    ):
        return GVISOR
    if {"APPTAINER_CONTAINER", "APPTAINER_NAME", "SINGULARITY_NAME"} & environment.keys():
        return APPTAINER
    if "KUBERNETES_SERVICE_HOST" in environment:
        return KUBERNETES
    if (root / "run/.containerenv").exists() or environment.get("container") == "podman":
        return PODMAN
    if (root / ".dockerenv").exists():
        return DOCKER
    if "SLURM_JOB_ID" in environment:
        return SLURM
    return WSL if "microsoft" in version.lower() else ""


def get_advice(container: str) -> str:
    """Return how to allow namespaces and mounts in ``container``, as of :func:`find_container`."""
    return f"{_ADVICE[container]}; {OTHERWISE}" if container else OTHERWISE.removeprefix("or ")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _read_kernel_log() -> bytes:
    buffer = ctypes.create_string_buffer(1 << 14)
    size = ctypes.CDLL(None).klogctl(_READ_ALL, buffer, len(buffer))
    return buffer.raw[: max(0, size)]
