"""What vLLM loads in each of its processes (entry point group ``vllm.general_plugins``); inert on
GPUs.
"""

from verl_pipeline.plugin import cpu_chosen


def register() -> None:
    """Prepare a vLLM process on a CPU for weights that change and for cores that others need."""
    if cpu_chosen():
        from verl_pipeline.cpu.patches import pack_vllm_weights_at_first_use, stop_vllm_busy_waiting

        pack_vllm_weights_at_first_use()
        stop_vllm_busy_waiting()
