"""What vLLM loads in each of its processes (entry point group ``vllm.general_plugins``); inert on GPUs."""

from verl_pipeline.plugin import cpu_chosen


def register() -> None:
    """Prepare a vLLM process on a CPU for weights that change and for cores that others need."""
    if cpu_chosen():
        from verl_pipeline.cpu.patches import keep_vllm_linear_weights, stop_vllm_busy_waiting

        keep_vllm_linear_weights()
        stop_vllm_busy_waiting()
