"""What a run would do, in words: pools, batches, schedule, filters, reward, data, model, deadlines.

Invariant: the plan describes the configuration as the trainer completes it, and only those parts of
it that have passed their checks.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.device import get_resource_name

from verl_pipeline.curriculum.settings import describe_curriculum
from verl_pipeline.entry_points import VERLS_ENTRY, find_entry
from verl_pipeline.number_formats import format_percent
from verl_pipeline.trainer.pipeline_config import (
    FILTERED_SYNC,
    FILTERED_SYNC_MODE,
    PIPELINE_KEY,
    ROLLOUT,
    TRAINER_MODE,
    Deadlines,
    DerivedSetting,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.check_report import READABLE, CheckReport, NotChecked
from verl_pipeline.verl_adapter.checks.config_checks import (
    count_replica_devices,
    count_trainer_ranks,
)
from verl_pipeline.verl_adapter.checks.data_files import find_data_files, list_entries
from verl_pipeline.verl_adapter.checks.data_parallel import describe_size, find_shape, list_sections
from verl_pipeline.verl_adapter.checks.dial_checks import describe_dial
from verl_pipeline.verl_adapter.checks.model_checks import find_position_limit, is_remote
from verl_pipeline.verl_adapter.entry.start_report import suggest_memory_share
from verl_pipeline.verl_adapter.entry.start_settings import derive_start_settings
from verl_pipeline.verl_adapter.placement.ray_slots import describe_slots, list_requests, sum_slots
from verl_pipeline.verl_adapter.rewards.reward_settings import CODE_REWARD, REWARD_KWARGS
from verl_pipeline.verl_adapter.settings.derived_settings import (
    derive_settings,
    derive_sync_settings,
    describe_correction,
)

# Lines by title.
Plan = dict[str, list[str]]
# Without these there is nothing to compute a plan from.
_BASIC = {
    READABLE,
    "numbers",
    "names",
    "pools",
    "batches",
    "pipeline settings",
    "filters",
    "derived settings",
}


def build_plan(config: DictConfig, report: CheckReport) -> Plan:
    """The plan of ``config``, which is left as it is; {} if its basic settings are wrong."""
    if report.failed & _BASIC:
        return {}
    completed = copy.deepcopy(config)
    derived = _complete(completed)
    sections: list[tuple[str, set[str], Callable[[DictConfig], Iterator[str]]]] = [
        ("pools", set(), _describe_pools),
        ("batches", set(), _describe_batches),
        ("schedule", set(), _describe_schedule),
        ("reward", {"reward function"}, _describe_reward),
        ("data", {"files", "data set"}, _describe_data),
        ("model", {"model"}, _describe_model),
        ("deadlines", set(), _describe_deadlines),
    ]
    plan = {
        title: list(describe(completed))
        for title, needs, describe in sections
        if not report.failed & needs
    }
    plan["derived settings"] = [str(setting) for setting in derived] or ["none"]
    return {title: lines for title, lines in plan.items() if lines}


def _complete(config: DictConfig) -> list[DerivedSetting]:
    mode = config.trainer.v1.trainer_mode
    # verl's entry starts Ray and TransferQueue before anything of ours runs.
    derived = [] if find_entry() == VERLS_ENTRY else derive_start_settings(config)
    if mode == TRAINER_MODE:
        derived += derive_settings(config, load_pipeline_config(config))
    elif mode == FILTERED_SYNC_MODE:
        derived += derive_sync_settings(config)
    return derived


def _describe_pools(config: DictConfig) -> Iterator[str]:
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    device = str(trainer.device)
    ranks, parallel = count_trainer_ranks(config), count_replica_devices(config)
    shares = "" if trainer.v1.trainer_mode == TRAINER_MODE else ", which also sample"
    yield (
        f"train:  {trainer.nnodes} x {trainer.n_gpus_per_node} {device} devices (nodes x devices): "
        f"{_count(ranks, 'rank')}{shares}"
    )
    if not shares:
        devices = rollout.nnodes * rollout.n_gpus_per_node
        yield (
            f"sample: {rollout.nnodes} x {rollout.n_gpus_per_node} {device} devices: "
            f"{_count(devices // parallel, f'{rollout.name} replica')} of {parallel} (tensor "
            f"{rollout.tensor_model_parallel_size} x data {rollout.data_parallel_size} x pipeline "
            f"{rollout.pipeline_model_parallel_size})"
        )
        if (hint := suggest_memory_share(config)) is not None:
            yield hint
    slots = describe_slots(*sum_slots(list_requests(config)), get_resource_name())
    yield f"Ray slots that it asks for: {slots}"


def _describe_batches(config: DictConfig) -> Iterator[str]:
    actor, n = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout.n
    batch, mini_batch = config.data.train_batch_size, actor.ppo_mini_batch_size
    yield f"{batch} prompts x {n} samples = {batch * n} trajectories a step"
    updates = -(-batch // mini_batch) * actor.ppo_epochs
    padded = ", the last mini-batch padded" if batch % mini_batch else ""
    yield (
        f"mini-batches of {mini_batch} prompts = {mini_batch * n} trajectories, "
        f"{_count(actor.ppo_epochs, 'pass', 'passes')} over the batch: {_count(updates, 'update')} "
        f"a step{padded}"
    )
    yield from _describe_shares(config)
    models = [
        name
        for name, used in (
            ("critic", need_critic(config)),
            ("reference policy", need_reference_policy(config)),
        )
        if used
    ]
    yield f"advantage {config.algorithm.adv_estimator}; beside the actor: {_join(models)}"
    steps, epochs = config.trainer.total_training_steps, config.trainer.total_epochs
    yield f"until step {steps}" if steps is not None else f"for {_count(epochs, 'epoch')}"


def _describe_shares(config: DictConfig) -> Iterator[str]:
    """The roles whose devices do not each get trajectories of their own."""
    ranks = count_trainer_ranks(config)
    for section in list_sections(config):
        try:
            shape = find_shape(config, section)
        except NotChecked:
            continue
        if shape.size < ranks:
            yield f"{section}: {describe_size(shape)}"


def _describe_schedule(config: DictConfig) -> Iterator[str]:
    mode = config.trainer.v1.trainer_mode
    yield f"trainer mode {mode}"
    if mode == TRAINER_MODE:
        settings = load_pipeline_config(config)
        yield from describe_dial(config, settings)
        yield f"correction {settings.correction}: {describe_correction(config)}"
        yield f"prompts: {describe_curriculum(settings.curriculum)}"
        yield f"filters: {_join(settings.filters)}"
        yield f"at most {format_percent(settings.max_infrastructure_share, 0)} of a batch may fail"
    elif mode == FILTERED_SYNC_MODE:
        filters = OmegaConf.select(config, f"{FILTERED_SYNC}.filters", default=["infrastructure"])
        yield f"filters: {_join(filters)}"


def _describe_reward(config: DictConfig) -> Iterator[str]:
    reward = config.reward.custom_reward_function
    if reward.path is None:
        yield "verl's own, chosen by each row's data_source"
        if (url := OmegaConf.select(config, "reward.sandbox_fusion.url")) is not None:
            yield f"programs run on {url}"
    else:
        kwargs = OmegaConf.select(config, REWARD_KWARGS) or {}
        yield f"{reward.name} of {reward.path}"
        yield from (f"{name}={value}" for name, value in kwargs.items())
        if reward.path == CODE_REWARD and "tier" not in kwargs:
            yield "sandbox: the strongest tier that a reward worker finds on its machine"
    manager = config.reward.reward_manager
    yield f"reward manager {manager.name}, {_count(config.reward.num_workers, 'worker')}"
    if config.reward.reward_model.enable:
        yield f"reward model {config.reward.reward_model.model_path}"


def _describe_data(config: DictConfig) -> Iterator[str]:
    for name in ("train_files", "val_files"):
        for entry in list_entries(config.data[name]):
            for file in find_data_files(entry) or [f"{entry} (remote)"]:
                yield f"{name.removesuffix('_files')}: {file}{_count_rows(file)}"


def _count_rows(file: str) -> str:
    import pyarrow.parquet

    if not file.endswith(".parquet"):
        return ""
    return f", {_count(pyarrow.parquet.read_metadata(file).num_rows, 'row')}"


def _describe_model(config: DictConfig) -> Iterator[str]:
    rollout = config.actor_rollout_ref.rollout
    path = config.actor_rollout_ref.model.path
    yield path if is_remote(path) else f"{path}: {find_position_limit(config)} positions"
    needed = rollout.prompt_length + rollout.response_length
    yield (
        f"prompt {rollout.prompt_length} + response {rollout.response_length} = {needed} tokens; "
        f"{ROLLOUT}.max_model_len={rollout.max_model_len}"
    )


def _describe_deadlines(config: DictConfig) -> Iterator[str]:
    if config.trainer.v1.trainer_mode == TRAINER_MODE:
        deadlines = load_pipeline_config(config).deadlines
        values = [f"{entry.name}={getattr(deadlines, entry.name):g}" for entry in fields(Deadlines)]
        yield f"{PIPELINE_KEY}.deadlines: {', '.join(values)}"
        yield "batch_s, trajectory_s and reward_s do not count time in a queue that moves"


def _join(values: Any) -> str:
    return ", ".join(map(str, values)) or "none"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
