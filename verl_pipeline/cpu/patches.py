"""Monkey-patches for CPU runs: the places of verl 0.9.1 and vLLM 0.27.1 that offer no seam.

Each patch says what breaks without it; ``tests/unit/cpu/test_patches.py`` fails when upstream changes the
patched code, so that a patch is either still needed and right, or removed.
"""

import functools

# Long enough for an answer that is on its way already; a step of generation takes tens of milliseconds.
BUSY_LOOP_S = 0.001


def patch_process_group_backend(module) -> None:
    """Open verl's process groups with gloo alone.

    ``verl.utils.distributed.initialize_global_process_group_ray`` composes ``cpu:gloo,{device}:{backend}``; on a CPU
    that names the device ``cpu`` twice, which torch refuses ("Duplicate device type cpu").

    Args:
        module: the freshly imported ``verl.utils.distributed``.
    """
    original = module.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    initialize_global_process_group_ray.__module__ = __name__
    module.initialize_global_process_group_ray = initialize_global_process_group_ray


def patch_value_head_attention(module) -> None:
    """Load critics with the attention that ``critic.model.override_config.attn_implementation`` names.

    ``verl.utils.model.load_valuehead_model`` asks for ``flash_attention_2`` whatever is configured, which needs a GPU.

    Args:
        module: the freshly imported ``verl.utils.model``.
    """

    def load_valuehead_model(local_path, torch_dtype, model_config, trust_remote_code):
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path,
            dtype=torch_dtype,
            config=model_config,
            attn_implementation=model_config._attn_implementation,
            trust_remote_code=trust_remote_code,
        )

    module.load_valuehead_model = load_valuehead_model


def keep_vllm_linear_weights() -> None:
    """Keep the parameters of vLLM's Linear layers after they are packed for oneDNN.

    vLLM replaces them by an empty tensor, so the second weight sync fails ("load weight [64, 128] into parameter
    [0]"). With the parameter kept, verl's post-load step packs the new values again.
    """
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if getattr(original, "_keeps_weights", False):
        return

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        return original(layer, remove_weight=False)

    dispatch_cpu_unquantized_gemm._keeps_weights = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def stop_vllm_busy_waiting() -> None:
    """Let vLLM's engine core sleep while its worker computes.

    The reader of vLLM's shared-memory queue spins until nothing has arrived for a second, so for as long as anything is
    generated. On a machine whose every core computes, that core is missing elsewhere: in the trainer.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    if not isinstance(shm_broadcast.SpinCondition.__init__, functools.partialmethod):
        original = shm_broadcast.SpinCondition.__init__
        shm_broadcast.SpinCondition.__init__ = functools.partialmethod(original, busy_loop_s=BUSY_LOOP_S)
