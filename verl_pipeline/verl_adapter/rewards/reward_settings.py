"""Settings of rewards that follow from others: their check, Sandbox Fusion's fields, deadlines.

Invariants:
* A setting of the user's is never replaced: one that contradicts another is refused.
* ``reward.sandbox_fusion`` means for our code reward what it means for verl's own. verl hands it to
  its own reward only.
* In the pipelined mode our code reward ends before the trainer gives up on it, so that its own
  verdict arrives and it waits for no slot in vain.
"""

from typing import Any
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf, open_dict

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    DerivedSetting,
)
from verl_pipeline.verl_adapter.rewards.sandbox_runners import SCHEME

MANAGER = f"{ROLLOUT}.agent.agent_loop_manager_class"
REWARD_CHECKING_MANAGER = "verl_pipeline.verl_adapter.rewards.reward_check.RewardCheckingManager"
CODE_REWARD = "pkg://verl_pipeline.rewards.code"
URL = "reward.sandbox_fusion.url"
REWARD_PATH = "reward.custom_reward_function.path"
REWARD_KWARGS = "reward.custom_reward_function.reward_kwargs"
# Shares of `deadlines.reward_s`; the rest is for the way to the reward worker and back.
QUEUE_SHARE, DEADLINE_SHARE = 0.9, 0.95


def apply_settings(config: DictConfig, wanted: list[DerivedSetting]) -> list[DerivedSetting]:
    """Set what differs, in place; returns those settings."""
    changed = [entry for entry in wanted if OmegaConf.select(config, entry.field) != entry.value]
    with open_dict(config):
        for entry in changed:
            OmegaConf.update(config, entry.field, entry.value, force_add=True)
    return changed


def derive_reward_check(config: DictConfig) -> list[DerivedSetting]:
    """Agent loops that check rewards, unless the user chose agent loops."""
    if OmegaConf.select(config, MANAGER) is not None:
        return []
    reason = "a reward that is not a finite number fails its own trajectory only"
    return [DerivedSetting(MANAGER, REWARD_CHECKING_MANAGER, reason)]


def derive_sandbox(config: DictConfig) -> list[DerivedSetting]:
    """Arguments of our code reward that ``reward.sandbox_fusion`` stands for; [] without its url.

    Raises:
        ConfigError: a scheme that the code reward does not know, or a sandbox chosen twice.
    """
    url = OmegaConf.select(config, URL)
    if not url or OmegaConf.select(config, REWARD_PATH) != CODE_REWARD:
        return []
    given = dict(OmegaConf.select(config, REWARD_KWARGS) or {})
    scheme = urlsplit(url).scheme
    fusion = config.reward.sandbox_fusion
    wanted: dict[str, Any]
    if scheme in ("http", "https"):
        wanted = {
            "tier": "remote",
            "url": url,
            "workers": fusion.max_concurrent,
            "memory_limit_mb": fusion.memory_limit_mb,
        }
    elif scheme == SCHEME:
        wanted = {"tier": urlsplit(url).netloc or "namespaces"}
    else:
        raise ConfigError(
            f"{URL}={url}: the code reward knows http, https and {SCHEME}; for the runner of "
            "another scheme use verl's own reward: remove reward.custom_reward_function.path"
        )
    for name in ("tier", "url"):
        if given.get(name, wanted.get(name)) != wanted.get(name):
            raise ConfigError(
                f"{REWARD_KWARGS}.{name}={given[name]}: contradicts {URL}={url}; remove one of them"
            )
    return [
        DerivedSetting(f"{REWARD_KWARGS}.{name}", value, f"{URL}={url}")
        for name, value in wanted.items()
        if name not in given
    ]


def derive_reward_deadlines(config: DictConfig, reward_s: float) -> list[DerivedSetting]:
    """``deadline_s`` and ``queue_s`` of our code reward, below the trainer's own deadline.

    Args:
        config: verl's configuration.
        reward_s: ``deadlines.reward_s``, in seconds.

    Raises:
        ConfigError: the user's own are not positive, or longer than the trainer or each other
            allows.
    """
    if OmegaConf.select(config, REWARD_PATH) != CODE_REWARD:
        return []
    given = dict(OmegaConf.select(config, REWARD_KWARGS) or {})
    for name in ("deadline_s", "queue_s"):
        if name in given and not (isinstance(given[name], int | float) and given[name] > 0):
            raise ConfigError(f"{REWARD_KWARGS}.{name}={given[name]}: must be positive seconds")
    trainers = f"{PIPELINE_KEY}.deadlines.reward_s={reward_s:g}"
    deadline_s = given.get("deadline_s", _round_seconds(DEADLINE_SHARE * reward_s))
    if deadline_s >= reward_s:
        raise ConfigError(
            f"{REWARD_KWARGS}.deadline_s={deadline_s:g}: must be below {trainers}, after which the "
            "trainer takes no verdict; lower it or raise the other"
        )
    queue_s = given.get("queue_s", min(_round_seconds(QUEUE_SHARE * reward_s), deadline_s))
    if queue_s > deadline_s:
        raise ConfigError(
            f"{REWARD_KWARGS}.queue_s={queue_s:g}: must be at most {REWARD_KWARGS}.deadline_s="
            f"{deadline_s:g}, which is below {trainers}; lower it or raise the others"
        )
    return [
        DerivedSetting(f"{REWARD_KWARGS}.{name}", value, f"within {trainers}")
        for name, value in (("deadline_s", deadline_s), ("queue_s", queue_s))
        if name not in given
    ]


def _round_seconds(seconds: float) -> float:
    return float(f"{seconds:.6g}")


def check_sandbox_is_used(config: DictConfig) -> None:
    """For verl's own trainers, which call nothing of ours: say how to reach the server.

    Raises:
        ConfigError: ``reward.sandbox_fusion.url`` with our code reward, which would not see it.
    """
    missing = derive_sandbox(config)
    if missing:
        settings = " ".join(f"+{entry.field}={entry.value}" for entry in missing)
        raise ConfigError(
            f"{URL}: in trainer_mode={config.trainer.v1.trainer_mode} verl passes it to its own "
            f"reward only; for the code reward set {settings}"
        )
