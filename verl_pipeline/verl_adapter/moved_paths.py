"""Modules of ours that a configuration may name and that have another name now.

Invariant: a configuration that names the old one is refused with the new one.
"""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import ConfigError

# Old module -> new module.
MOVED = {
    "verl_pipeline.trainer.agent_loop": "verl_pipeline.verl_adapter.agent_loop",
    "verl_pipeline.trainer.filtering_buffer": "verl_pipeline.verl_adapter.filtering_replay_buffer",
    "verl_pipeline.trainer.stream": "verl_pipeline.verl_adapter.prompt_stream",
    "verl_pipeline.weight_sync.gloo": "verl_pipeline.verl_adapter.checkpoint_engine",
}


def check_moved_paths(config: DictConfig) -> None:
    """Refuse a setting that names a module by its old name.

    Raises:
        ConfigError: names the setting and the new path.
    """
    for field, value in _list_texts(OmegaConf.to_container(config, resolve=False)):
        path = value.removeprefix("pkg://")
        for old, new in MOVED.items():
            if path == old or path.startswith(f"{old}."):
                raise ConfigError(f"{field}={value}: has moved; use {value.replace(old, new)}")


def _list_texts(node: object, field: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a configuration, each with the field that holds it."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _list_texts(value, f"{field}.{name}" if field else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _list_texts(value, field)
    elif isinstance(node, str):
        yield field, node
