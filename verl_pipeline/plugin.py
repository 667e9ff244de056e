"""What happens when verl loads us (entry point group ``verl.plugins``, in every ``import verl``).

Invariants:
* Cheap: nothing of verl's trainer, vLLM or Ray is imported here. Registration waits for the module
  of verl that it registers with (post-import hooks), so ``import verl`` stays as fast as it was.
* The platform comes first: verl resolves its platform once, during the import that this entry point
  is part of, so a CPU run must have been chosen by then (``VERL_PLATFORM=cpu``, or the overlay on
  the command line).
* Not silent: verl logs an exception raised here at DEBUG level only. ``verl-pipeline doctor`` and
  the trainer therefore check what is really in place
  (:mod:`.checks.seam_checks`).
"""

import sys

from wrapt import register_post_import_hook

from verl_pipeline.verl_adapter.cpu.environment import (
    is_cpu_run,
    set_environment,
    warm_up_processes,
)

CPU_OVERLAY = "verl_pipeline=cpu"
_TRAINER_BASES = {
    "verl_pipeline.verl_adapter.trainers.filtering_trainer",
    "verl_pipeline.verl_adapter.trainers.jagged_trainer",
}


def _has_cpu_overlay(argv: list[str]) -> bool:
    return any(argument.lstrip("+") == CPU_OVERLAY for argument in argv)


def _register_trainers(_module) -> None:
    # If one of our trainers' bases is what imports verl's trainers, it is not complete yet: it ends
    # with the same import.
    if not _TRAINER_BASES & sys.modules.keys():
        # The import registers both trainers with verl.
        import verl_pipeline.verl_adapter.trainers.pipelined_trainer  # noqa: F401


def _register_sandbox(sandbox_fusion) -> None:
    from verl_pipeline.rewards.sandbox_runner import run_code
    from verl_pipeline.verl_adapter.rewards.sandbox_runners import register_runner

    register_runner(sandbox_fusion, run_code)


def register() -> None:
    """Attach everything of ours to verl; safe to call more than once."""
    begins_cpu_run = _has_cpu_overlay(sys.argv)
    if begins_cpu_run:
        set_environment()
    if is_cpu_run():
        from verl_pipeline.verl_adapter.cpu import activate_cpu_support

        activate_cpu_support()
    register_post_import_hook(_register_trainers, "verl.trainer.ppo.v1")
    register_post_import_hook(_register_sandbox, "verl.utils.reward_score.sandbox_fusion.utils")
    if begins_cpu_run:
        # Last: this process may be forked here, with all hooks in place.
        warm_up_processes(sys.argv)


register()
