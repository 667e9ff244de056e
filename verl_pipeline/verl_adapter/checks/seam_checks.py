"""Checks that verl has loaded all our extensions; training stops if one is missing.

verl skips a plugin that fails to import without a word, and would then train without it. So the
trainer calls :func:`require_active` when it starts, and ``verl-pipeline doctor`` shows the same.

Invariant: every problem comes with its fix.
"""

import os
from importlib import metadata

from verl_pipeline.findings import Finding, State
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run

PLUGIN_MODULE = "verl_pipeline.plugin"


class NotActive(RuntimeError):
    """Some part of this plugin is not in place in this process."""


def require_active() -> None:
    """Refuse to go on half-active.

    Raises:
        NotActive: naming each part that is missing and what to do.
    """
    missing = [finding for finding in [examine_entry_point(), *examine_seams()] if not finding.ok]
    if missing:
        raise NotActive(
            "; ".join(f"{finding.topic}: {finding.detail}. {finding.fix}" for finding in missing)
        )


def examine_entry_point() -> Finding:
    """Whether verl's plugin loader finds and may load our entry point."""
    topic = "entry point verl.plugins"
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    entries = metadata.entry_points(group="verl.plugins")
    ours = [entry for entry in entries if entry.value == PLUGIN_MODULE]
    if not ours:
        fix = "install the package: pip install -e . (or its wheel)"
        return Finding(topic, State.MISSING, "not registered", fix)
    name = ours[0].name
    if policy.strip().lower() != "auto" and name not in policy:
        fix = f"unset VERL_USE_EXTERNAL_PLUGINS or add {name} to it"
        detail = f"switched off by VERL_USE_EXTERNAL_PLUGINS={policy}"
        return Finding(topic, State.MISSING, detail, fix)
    try:
        ours[0].load()
    except Exception as error:  # verl hides it; this is where it is shown
        detail = f"fails to load: {type(error).__name__}: {error}"
        return Finding(topic, State.MISSING, detail, "see the error")
    return Finding(topic, State.OK, f"{name} = {ours[0].value}")


def examine_seams() -> list[Finding]:
    """Import verl's trainer and report which of our extensions it knows.

    Returns:
        One finding each for the trainer mode, the platform, and, on CPUs, the engines, the process
        group and vLLM.
    """
    from verl.plugin.platform import get_platform
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    trainer = TRAINER_REGISTRY.get(TRAINER_MODE)
    registered = f"{trainer.__module__}.{trainer.__qualname__}" if trainer else "nothing"
    platform = get_platform()
    environment = os.environ.get("VERL_PLATFORM", "(unset)")
    seams = [
        (
            f"trainer mode {TRAINER_MODE}",
            registered.startswith("verl_pipeline."),
            f"verl's registry holds {registered}",
        ),
        (
            "platform",
            (platform.device_name == "cpu") == is_cpu_run(),
            f"verl uses {type(platform).__name__} ({platform.device_name}); "
            f"VERL_PLATFORM={environment}",
        ),
    ]
    if is_cpu_run():
        from verl_pipeline.verl_adapter.cpu import list_cpu_seams

        seams += list_cpu_seams()
    fix = (
        "start the run with verl_pipeline.main or verl.trainer.main_ppo in an environment where "
        "the plugin loads"
    )
    return [
        Finding(name, State.OK, detail) if ok else Finding(name, State.MISSING, detail, fix)
        for name, ok, detail in seams
    ]


def find_device_name() -> str:
    """verl's name of the device of this process's platform ("cuda", "npu", "cpu", ...)."""
    from verl.plugin.platform import get_platform

    return get_platform().device_name
