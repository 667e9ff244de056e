"""verl and vLLM on machines without a GPU; inert unless ``VERL_PLATFORM=cpu``.

Invariant: nothing here touches a process of a GPU run. :func:`activate` is idempotent.
"""

from wrapt import register_post_import_hook


def activate() -> None:
    """Register the platform now and everything else when verl imports the module it belongs to."""
    from verl_pipeline.cpu import patches, vllm_distribution

    vllm_distribution.install()

    def register_platform(_module) -> None:
        import verl_pipeline.cpu.platform  # noqa: F401

    def register_engines(_module) -> None:
        import verl_pipeline.cpu.engine  # noqa: F401

    register_post_import_hook(register_platform, "verl.plugin.platform.platform_manager")
    register_post_import_hook(patches.patch_process_group_backend, "verl.utils.distributed")
    register_post_import_hook(patches.patch_value_head_attention, "verl.utils.model")
    rollout = "verl.workers.rollout.vllm_rollout"
    register_post_import_hook(patches.hand_over_weights_in_place, f"{rollout}.vllm_rollout")
    register_post_import_hook(
        patches.map_received_weights_once, f"{rollout}.bucketed_weight_transfer"
    )
    register_post_import_hook(register_engines, "verl.workers.engine.fsdp.transformer_impl")


def seams() -> list[tuple[str, bool, str]]:
    """``(name, active, detail)`` of each CPU extension in this process."""
    import verl.workers.engine_workers as engine_workers
    from verl.workers.engine import EngineRegistry

    from verl_pipeline.cpu import vllm_distribution

    found = []
    for model_type in ("language_model", "value_model"):
        engine = EngineRegistry._engines.get(model_type, {}).get("fsdp2", {}).get("cpu")
        found.append(
            (
                f"CPU engine for {model_type}",
                engine is not None,
                f"{engine.__module__}" if engine else "not registered",
            )
        )
    init = engine_workers.initialize_global_process_group_ray
    found.append(
        ("gloo process group", init.__module__.startswith("verl_pipeline."), f"{init.__module__}")
    )
    version = vllm_distribution.vllm_version()
    found.append(("vLLM for CPUs", version is not None and "cpu" in version, f"version {version}"))
    return found
