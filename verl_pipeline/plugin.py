"""What happens when verl loads us (entry point group ``verl.plugins``, run by every ``import
verl``).

Invariants:
* Cheap: nothing of verl's trainer, vLLM or Ray is imported here. Registration waits for the module
  of verl that it registers with (post-import hooks), so ``import verl`` stays as fast as it was.
* The platform comes first: verl resolves its platform once, during the import that this entry point
  is part of, so a CPU run must have been chosen by then (``VERL_PLATFORM=cpu`` or the overlay's
  word on the command line).
* Loud: verl hides an exception raised here at DEBUG level; ``verl-pipeline doctor`` and the trainer
  therefore ask :func:`active_seams` what really is in place.
"""

import os
import sys
from dataclasses import dataclass

from wrapt import register_post_import_hook

TRAINER_MODE = "one_off_pipeline"
FILTERED_SYNC_MODE = "sync_filtered"
CPU_OVERLAY = "verl_pipeline=cpu"


@dataclass(frozen=True)
class Seam:
    """One place where we extend verl, and whether our part is in place in this process."""

    name: str
    active: bool
    detail: str


def cpu_chosen() -> bool:
    """Whether this process belongs to a run on CPUs."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _cpu_overlay_on_command_line(argv: list[str]) -> bool:
    return any(word.lstrip("+") == CPU_OVERLAY for word in argv)


def _register_trainer(_module) -> None:
    # The imports register the trainers.
    import verl_pipeline.trainer.filtered_sync
    import verl_pipeline.trainer.one_off  # noqa: F401


def register() -> None:
    """Attach everything of ours to verl; safe to call more than once."""
    if _cpu_overlay_on_command_line(sys.argv):
        from verl_pipeline.cpu.environment import set_environment

        set_environment()
    if cpu_chosen():
        from verl_pipeline.cpu import activate

        activate()
    register_post_import_hook(_register_trainer, "verl.trainer.ppo.v1")


def active_seams() -> list[Seam]:
    """Import verl's trainer and report which of our extensions it knows.

    Returns:
        One :class:`Seam` each for the trainer mode, the platform, and, on CPUs, the engine and the
        process group.
    """
    from verl.plugin.platform import get_platform
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    trainer = TRAINER_REGISTRY.get(TRAINER_MODE)
    seams = [
        Seam(
            f"trainer mode {TRAINER_MODE}",
            trainer is not None and trainer.__module__.startswith("verl_pipeline."),
            "verl's registry holds "
            f"{trainer.__module__ + '.' + trainer.__qualname__ if trainer else 'nothing'}",
        )
    ]
    platform = get_platform()
    seams.append(
        Seam(
            "platform",
            (platform.device_name == "cpu") == cpu_chosen(),
            f"verl uses {type(platform).__name__} ({platform.device_name}); VERL_PLATFORM="
            f"{os.environ.get('VERL_PLATFORM', '(unset)')}",
        )
    )
    if cpu_chosen():
        from verl_pipeline.cpu import seams as cpu_seams

        seams.extend(Seam(*seam) for seam in cpu_seams())
    return seams


register()
