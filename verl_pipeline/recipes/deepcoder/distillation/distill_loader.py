"""Reads and checks the settings of a distillation: a file (``--config``), then ``key=value`` pairs.

Invariant: contradictory settings are refused here, by name and in one line, before any file but
the settings' is opened.
"""

import os
from pathlib import Path

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.distillation.distill_config import DistillConfig
from verl_pipeline.recipes.deepcoder.settings_layers import merge_settings, read_layer
from verl_pipeline.settings_values import list_empty_texts

METHODS = ("sft", "on_policy")
# verl's losses of a single token's log-prob that can be differentiated, and the one of k tokens.
LOSSES = ("k1", "k2", "k3", "forward_kl_topk")
_MAY_BE_EMPTY = ("student", "data", "source", "teacher.model")
_MINIMUMS = (
    "devices max_prompt_tokens max_tokens teacher.k selection.per_problem sft.epochs "
    "sft.batch_size sft.micro_batch_size on_policy.steps on_policy.prompts on_policy.n "
    "on_policy.teacher_devices on_policy.rollout_devices score.n"
).split()


def load_distillation(file: str | None, overrides: list[str]) -> DistillConfig:
    """Merge the defaults, the file and the overrides, and check the result.

    Raises:
        BadSetting: an unknown setting, a value of another type, or a contradiction.
    """
    layers = [] if file is None else [read_layer(Path(file))]
    config = merge_settings(DistillConfig, layers, overrides)
    _check_texts(config)
    _check_choices(config)
    _check_numbers(config)
    _check_combinations(config)
    return config


def _read(config: object, name: str) -> object:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _check_texts(config: DistillConfig) -> None:
    needed = {
        "student": "name the model that is trained: a folder, a hub name, or quickstart",
        "teacher.model": "name the model that is distilled: a folder or hub name",
        "data": "name the folder with train.parquet and heldout.parquet",
    }
    for name, advice in needed.items():
        if not _read(config, name):
            raise BadSetting(f"{name} is not set: {advice}")
    for name in list_empty_texts(config):
        if name not in _MAY_BE_EMPTY:
            raise BadSetting(f"{name} is empty: give it a value, or leave it out")
    for name in ("train.parquet", "heldout.parquet"):
        if not os.path.isfile(Path(config.data) / name):
            raise BadSetting(
                f"data={config.data}: no {name} there; python -m "
                "verl_pipeline.recipes.deepcoder.prepare writes both (split.heldout above 0)"
            )


def _check_choices(config: DistillConfig) -> None:
    choices: dict[str, tuple[object, ...]] = {
        "method": METHODS,
        "device": ("cpu", "cuda"),
        "selection.keep": ("shortest", "diverse"),
        "selection.cut_off": ("drop", "trim"),
        "on_policy.staleness": (0, 1),
        "on_policy.loss": LOSSES,
        "grader.tier": ("namespaces", "rlimits", "remote"),
    }
    for name, allowed in choices.items():
        if (value := _read(config, name)) not in allowed:
            raise BadSetting(f"{name}={value}: must be one of {', '.join(map(str, allowed))}")


def _check_numbers(config: DistillConfig) -> None:
    for name in _MINIMUMS:
        value = _read(config, name)
        assert isinstance(value, int)
        if value < 1:
            raise BadSetting(f"{name}={value}: must be at least 1")
    for name in ("sft.lr", "on_policy.lr", "on_policy.coefficient"):
        value = _read(config, name)
        # Comparisons with NaN are false.
        if not (isinstance(value, float) and 0 < value < float("inf")):
            raise BadSetting(f"{name}={value}: must be a number above 0")


def _check_combinations(config: DistillConfig) -> None:
    engine = config.teacher.engine
    if (engine.kind == "server") != (engine.url is not None):
        raise BadSetting(
            "teacher.engine.url: set it together with teacher.engine.kind=server, and only then"
        )
    if config.method == "on_policy" and engine.kind == "server":
        raise BadSetting(
            "teacher.engine.kind=server: on-policy distillation needs the teacher's log-probs of "
            "the student's token ids, which OpenAI's interface does not return; name the teacher's "
            "folder or hub name, or use method=sft"
        )
    if config.method == "sft" and config.sft.batch_size % (
        config.devices * config.sft.micro_batch_size
    ):
        raise BadSetting(
            f"sft.batch_size={config.sft.batch_size}: must be a multiple of devices="
            f"{config.devices} x sft.micro_batch_size={config.sft.micro_batch_size}"
        )
