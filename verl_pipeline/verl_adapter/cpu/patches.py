"""Monkey-patches for CPU runs: the places of verl 0.9.1 and vLLM 0.27.1 that offer no seam.

Each patch says what breaks without it. ``tests/unit/verl_adapter/cpu/test_patches.py`` fails when
upstream changes the patched code, so that a patch is still needed and right, or gets removed.
"""

import functools
import os

# Long enough for an answer that is already on its way; a step of generation takes tens of ms.
BUSY_LOOP_S = 0.001
# The delay that a lost notification costs. Polling at this rate takes far below 1 % of a core.
RECHECK_MS = 5


def patch_process_group_backend(module) -> None:
    """Open verl's process groups with gloo alone.

    ``verl.utils.distributed.initialize_global_process_group_ray`` and, for the SFT trainer,
    ``initialize_global_process_group`` compose ``cpu:gloo,{device}:{backend}``; on a CPU that names
    the device ``cpu`` twice, which torch refuses ("Duplicate device type cpu").

    Args:
        module: the freshly imported ``verl.utils.distributed``.
    """
    original = module.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    def initialize_global_process_group(timeout_second=36000):
        initialize_global_process_group_ray(timeout_second)
        return tuple(int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))

    for function in (initialize_global_process_group_ray, initialize_global_process_group):
        function.__module__ = __name__
        setattr(module, function.__name__, function)


def patch_value_head_attention(module) -> None:
    """Load critics with the configured attention implementation.

    ``verl.utils.model.load_valuehead_model`` ignores
    ``critic.model.override_config.attn_implementation`` and asks for ``flash_attention_2``, which
    needs a GPU.

    Args:
        module: the freshly imported ``verl.utils.model``.
    """

    @functools.wraps(module.load_valuehead_model)
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


def load_weights_in_place(module) -> None:
    """Let vLLM load weights from the memory they were received in.

    verl would copy them into a new shared-memory segment at each sync; touching new memory is most
    of that cost.

    Args:
        module: the freshly imported ``verl.workers.rollout.vllm_rollout.vllm_rollout``.
    """
    from verl_pipeline.verl_adapter.weights.vllm_weight_sender import InPlaceWeightSender

    module.BucketedWeightSender = InPlaceWeightSender


def map_received_weights_once(module) -> None:
    """Let vLLM's worker keep the segment with the weights mapped from one sync to the next.

    verl's receiver would map it anew at each sync.

    Args:
        module: the freshly imported ``verl.workers.rollout.vllm_rollout.bucketed_weight_transfer``.
    """
    from verl_pipeline.verl_adapter.cpu.kept_segments import cache_rebuilt_segments

    module.rebuild_shared_memory = cache_rebuilt_segments(module.rebuild_shared_memory)


def pack_vllm_weights_at_first_use() -> None:
    """Pack a Linear layer's weights for oneDNN at its first use after a load; keep the original.

    vLLM packs while it loads and replaces the weights with an empty tensor, so the second weight
    sync fails ("load weight [64, 128] into parameter [0]"). Packing at first use also overlaps with
    the trainer's work, and skips an embedding that no layer multiplies with (for SmolLM2-135M a
    sixth of what vLLM packs).
    """
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if getattr(original, "_packs_at_first_use", False):
        return

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        if layer.weight.is_meta or layer.weight.ndim != 2:
            return original(layer, remove_weight=False)

        def pack_and_multiply(x, weight, bias):
            original(layer, remove_weight=False)  # replaces layer.cpu_linear
            return layer.cpu_linear(x, weight, bias)

        layer.cpu_linear = pack_and_multiply

    dispatch_cpu_unquantized_gemm._packs_at_first_use = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def stop_vllm_busy_waiting() -> None:
    """Let vLLM's engine core sleep while its worker computes.

    The reader of vLLM's shared-memory queue spins until nothing has arrived for a second, that is
    for as long as anything is generated. On a machine without a spare core, it takes that core from
    the trainer.

    A reader that sleeps depends on notifications, and vLLM's publisher drops those that follow each
    other closely (``SNDHWM`` of 1). Its own recheck after 5 s is too rare for a step of generation.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = RECHECK_MS

    if not isinstance(shm_broadcast.SpinCondition.__init__, functools.partialmethod):
        original = shm_broadcast.SpinCondition.__init__
        shm_broadcast.SpinCondition.__init__ = functools.partialmethod(
            original, busy_loop_s=BUSY_LOOP_S
        )
