"""Modules of ours that a configuration may name and that have another name now.

Invariant: a configuration that names the old one is refused with the new one.
"""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import ConfigError

_ADAPTER = "verl_pipeline.verl_adapter"
_AGENT_LOOP = f"{_ADAPTER}.rollout.agent_loop"
_CHECKPOINT_ENGINE = f"{_ADAPTER}.weights.checkpoint_engine"
_FILTERING_BUFFER = f"{_ADAPTER}.trainers.filtering_replay_buffer"
_PROMPT_STREAM = f"{_ADAPTER}.trajectories.prompt_stream"
# Old module -> new module.
MOVED = {
    "verl_pipeline.trainer.agent_loop": _AGENT_LOOP,
    "verl_pipeline.trainer.filtering_buffer": _FILTERING_BUFFER,
    "verl_pipeline.trainer.stream": _PROMPT_STREAM,
    "verl_pipeline.weight_sync.gloo": _CHECKPOINT_ENGINE,
    f"{_ADAPTER}.agent_loop": _AGENT_LOOP,
    f"{_ADAPTER}.checkpoint_engine": _CHECKPOINT_ENGINE,
    f"{_ADAPTER}.filtering_replay_buffer": _FILTERING_BUFFER,
    f"{_ADAPTER}.prompt_stream": _PROMPT_STREAM,
    f"{_ADAPTER}.reward_check": f"{_ADAPTER}.rewards.reward_check",
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
