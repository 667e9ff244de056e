"""What vLLM loads in each of its processes (entry point group ``vllm.general_plugins``)."""

from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run


def register() -> None:
    """Patch a vLLM process of a CPU run; does nothing on GPUs."""
    if is_cpu_run():
        from verl_pipeline.verl_adapter.cpu.patches import (
            pack_vllm_weights_at_first_use,
            stop_vllm_busy_waiting,
        )

        pack_vllm_weights_at_first_use()
        stop_vllm_busy_waiting()
