"""Whether the sandbox that a run's rewards will use works, tried before any model is loaded.

Invariant: a failure is one line with the fix.
"""

from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.grading.sandbox_trial import try_sandbox
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.rewards.reward_settings import (
    CODE_REWARD,
    REWARD_KWARGS,
    REWARD_PATH,
    URL,
    derive_sandbox,
)
from verl_pipeline.verl_adapter.rewards.sandbox_runners import SCHEME


def check_sandbox(config: DictConfig) -> None:
    """Grade two programs in the sandbox of the code reward, ours or verl's, on this machine.

    The reward workers of a cluster's other nodes start sandboxes of their own, which are not tried.

    Raises:
        ConfigError: it does not work here, or its settings do not fit together.
    """
    arguments = find_sandbox(config)
    if arguments is None:
        return
    chosen = ", ".join(f"{name}={value}" for name, value in arguments.items())
    try:
        finding = try_sandbox(**arguments)
    except ValueError as error:
        raise ConfigError(f"{REWARD_KWARGS} ({chosen}): {error}") from error
    if not finding.ok:
        raise ConfigError(f"code reward ({chosen}): {finding.detail}; {finding.fix}")


def find_sandbox(config: DictConfig) -> dict | None:
    """Return the arguments ``tier``, ``url`` and ``memory_limit_mb`` of the rewards' sandbox.

    None if the rewards use no sandbox of ours.
    """
    if OmegaConf.select(config, REWARD_PATH) == CODE_REWARD:
        given = dict(OmegaConf.select(config, REWARD_KWARGS) or {})
        derived = {entry.field.rpartition(".")[2]: entry.value for entry in derive_sandbox(config)}
        settings = {"tier": "namespaces"} | derived | given
        names = ("tier", "url", "memory_limit_mb")
        return {name: settings[name] for name in names if settings.get(name) is not None}
    url = urlsplit(OmegaConf.select(config, URL) or "")
    return {"tier": url.netloc or "namespaces"} if url.scheme == SCHEME else None
