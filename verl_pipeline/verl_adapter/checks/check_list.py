"""The list of all checks of a run, cheap ones first: settings, the user's code, files, devices, the
model.

Invariants:
* Another check becomes an entry of a list here; nothing else has to be changed.
* Each mode has its checks of settings; what concerns code, files and the model is the same in all.
"""

import copy
from collections.abc import Collection, Sequence

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    FILTERED_SYNC_MODE,
    PIPELINE_KEY,
    TRAINER_MODE,
    ConfigError,
    load_pipeline_config,
    load_sync_filters,
    make_filters,
)
from verl_pipeline.verl_adapter.checks import (
    agent_loop_checks,
    batch_checks,
    code_checks,
    config_checks,
    dial_checks,
    engine_names,
    machine_checks,
    model_checks,
    teacher_checks,
    value_checks,
)
from verl_pipeline.verl_adapter.checks.check_report import (
    READABLE,
    Check,
    CheckReport,
    OutOfReachError,
    run_checks,
)
from verl_pipeline.verl_adapter.checks.device_packages import check_packages
from verl_pipeline.verl_adapter.checks.moved_paths import check_moved_paths
from verl_pipeline.verl_adapter.checks.queue_capacity import derive_capacity
from verl_pipeline.verl_adapter.checks.sandbox_check import check_sandbox
from verl_pipeline.verl_adapter.rewards.reward_settings import check_sandbox_is_used, derive_sandbox
from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings


def _check_pipeline_settings(config: DictConfig) -> None:
    load_pipeline_config(config)


def _check_filters(config: DictConfig) -> None:
    make_filters(load_pipeline_config(config).filters, f"{PIPELINE_KEY}.filters")


def _check_sync_filters(config: DictConfig) -> None:
    load_sync_filters(config)


def _check_derived_settings(config: DictConfig) -> None:
    derive_settings(copy.deepcopy(config), load_pipeline_config(config))


def _check_queue_capacity(config: DictConfig) -> None:
    derive_capacity(config)


def _check_sandbox(config: DictConfig) -> None:
    derive_sandbox(config)


def _try_sandbox(config: DictConfig) -> None:
    try:
        check_sandbox(config)
    except ConfigError as error:
        if config.trainer.device != "cpu" and not machine_checks.has_device():
            # Someone checks on a machine that is not the run's; its sandbox may be another.
            raise OutOfReachError(*error.lines) from error
        raise


def _check_drop_only_filters(config: DictConfig) -> None:
    sampler = config.trainer.v1.sampler
    name = OmegaConf.select(sampler, "custom_sampler.name")
    if name == config_checks.FILTERING_REPLAY_BUFFER:
        mode, kwargs = config.trainer.v1.trainer_mode, OmegaConf.select(sampler, "sampler_kwargs")
        config_checks.load_drop_only_filters(mode, kwargs)
        config_checks.check_mini_batches(config)


# The others go as far as they can read values.
BASIC = [
    Check(READABLE, value_checks.check_readable),
    Check("numbers", value_checks.check_numbers),
    Check("names", value_checks.check_names),
    Check("moved paths", check_moved_paths),
    Check("trainer version", config_checks.check_trainer_version),
    Check("max_model_len", model_checks.check_max_model_len, needs=["numbers"]),
]
PIPELINED = [
    Check("pools", config_checks.check_pools, needs=["numbers"]),
    Check("batches", batch_checks.check_batches, needs=["numbers", "pools"]),
    Check("mini-batches", config_checks.check_mini_batches, needs=["batches"]),
    Check("micro-batches", batch_checks.check_micro_batches, needs=["batches"]),
    Check("unsupported settings", config_checks.check_unsupported),
    Check("pipeline settings", _check_pipeline_settings),
    Check("filters", _check_filters, needs=["pipeline settings"]),
    Check("weight sync mode", dial_checks.check_dial, needs=["pipeline settings", "numbers"]),
    Check("seeds", engine_names.check_seeds, needs=["pipeline settings"]),
    Check("derived settings", _check_derived_settings, needs=["pipeline settings"]),
    Check(
        "distillation loss",
        teacher_checks.check_distillation_loss,
        needs=["pipeline settings", "weight sync mode"],
    ),
    Check("queue capacity", _check_queue_capacity, needs=["batches", "pipeline settings"]),
]
FILTERED_SYNC = [
    Check("filters", _check_sync_filters),
    Check("mini-batches", config_checks.check_mini_batches, needs=["numbers"]),
    Check("derived settings", _check_sandbox),
]
OTHER_MODES = [
    Check("derived settings", check_sandbox_is_used),
    Check("filters", _check_drop_only_filters),
]
VERL = [
    Check(
        "verl's settings",
        config_checks.check_with_verl,
        needs=[READABLE, "numbers", "names", "batches", "mini-batches", "micro-batches"],
    ),
]
CODE = [
    Check("reward function", code_checks.check_reward_function),
    Check("reward manager", code_checks.check_reward_manager),
    Check("data set", code_checks.check_dataset_class),
    Check("sampler", code_checks.check_sampler_class),
    Check("agent loop manager", code_checks.check_agent_loop_manager),
    Check("agent loops", code_checks.check_agent_loops),
    Check("weight sync", code_checks.check_weight_sync_module),
    Check("rollout server", code_checks.check_server_class),
    Check("agent loop names", agent_loop_checks.check_agent_loop_names, needs=["agent loops"]),
    Check("tools", agent_loop_checks.check_function_tools),
    Check("rollout engine", engine_names.check_rollout_name),
    Check("weight backend", engine_names.check_backend_name, needs=["weight sync"]),
]
MACHINE = [
    Check("files", machine_checks.check_files, needs=["data set"]),
    Check("paths", machine_checks.check_paths),
    Check("device", machine_checks.check_device),
    Check("packages", check_packages, needs=["names", "device"]),
    Check("sandbox", _try_sandbox, needs=["reward function", "derived settings"]),
    Check("model paths", model_checks.check_model_paths, needs=["paths"]),
    Check("model", model_checks.check_positions, needs=["numbers", "model paths"]),
    Check("teachers", teacher_checks.check_teachers, needs=["model paths"]),
]
_OF_MODE = {TRAINER_MODE: PIPELINED, FILTERED_SYNC_MODE: FILTERED_SYNC}


def list_checks(config: DictConfig) -> Sequence[Check]:
    """The checks of the configuration's trainer mode."""
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    return [*BASIC, *_OF_MODE.get(mode, OTHER_MODES), *VERL, *CODE, *MACHINE]


def examine_run(config: DictConfig, skip: Collection[str] = ()) -> CheckReport:
    """Check everything about a run, in any trainer mode, that can be checked before Ray starts.

    Args:
        skip: names of checks that are left out, for example ``files`` that are not there yet.
    """
    return run_checks(config, list_checks(config), skip)


def check_run(config: DictConfig, skip: Collection[str] = ()) -> None:
    """Refuse a run that :func:`examine_run` finds fault with.

    Raises:
        ConfigError: all settings that cannot work, one line each.
    """
    examine_run(config, skip).raise_errors()


def check_pipelined_config(config: DictConfig) -> None:
    """What the trainer itself checks, in whatever way it was started.

    Raises:
        ConfigError: as :func:`check_run`.
    """
    run_checks(config, [*BASIC, *PIPELINED, *CODE, *MACHINE]).raise_errors()
