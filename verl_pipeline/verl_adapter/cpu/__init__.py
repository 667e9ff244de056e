"""verl and vLLM on machines without a GPU; inert unless ``VERL_PLATFORM=cpu``.

Invariant: nothing here touches a process of a GPU run. :func:`activate_cpu_support` may be called
more than once.
"""

from wrapt import register_post_import_hook


def activate_cpu_support() -> None:
    """Register the platform now, and the rest when verl imports the module it belongs to."""
    from verl_pipeline.verl_adapter.cpu import patches, vllm_distribution

    vllm_distribution.install_finder()

    def register_platform(_module) -> None:
        import verl_pipeline.verl_adapter.cpu.platform  # noqa: F401

    def register_engines(_module) -> None:
        import verl_pipeline.verl_adapter.cpu.engine  # noqa: F401

    vllm_rollout = "verl.workers.rollout.vllm_rollout"
    for hook, module in (
        (register_platform, "verl.plugin.platform.platform_manager"),
        (patches.patch_process_group_backend, "verl.utils.distributed"),
        (patches.patch_value_head_attention, "verl.utils.model"),
        (patches.load_weights_in_place, f"{vllm_rollout}.vllm_rollout"),
        (patches.map_received_weights_once, f"{vllm_rollout}.bucketed_weight_transfer"),
        (register_engines, "verl.workers.engine.fsdp.transformer_impl"),
    ):
        register_post_import_hook(hook, module)


def list_cpu_seams() -> list[tuple[str, bool, str]]:
    """``(name, is_active, detail)`` of each CPU extension in this process."""
    import verl.workers.engine_workers as engine_workers
    from verl.workers.engine.base import EngineRegistry

    from verl_pipeline.verl_adapter.cpu import vllm_distribution

    seams = []
    for model_type in ("language_model", "value_model"):
        engine = EngineRegistry._engines.get(model_type, {}).get("fsdp2", {}).get("cpu")
        detail = engine.__module__ if engine else "not registered"
        seams.append((f"CPU engine for {model_type}", engine is not None, detail))
    module = engine_workers.initialize_global_process_group_ray.__module__
    seams.append(("gloo process group", module.startswith("verl_pipeline."), module))
    version = vllm_distribution.find_vllm_version()
    is_cpu_build = version is not None and "cpu" in version
    seams.append(("vLLM for CPUs", is_cpu_build, f"version {version}"))
    return seams
