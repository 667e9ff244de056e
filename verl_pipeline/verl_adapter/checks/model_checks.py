"""What the model can take: its number of positions, from its folder or from the hub.

Invariants:
* Nothing but the model's configuration is fetched, into a folder that is removed again.
* A hub that does not answer costs at most :data:`HUB_DEADLINE_S`; without a network, nothing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic
from verl.utils.fs import is_non_local
from verl.workers.rollout.utils import get_max_position_embeddings

from verl_pipeline.input_files import InputError, check_text_file
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import (
    Findings,
    NotChecked,
    OutOfReachError,
    describe_exception,
)

MODEL = "actor_rollout_ref.model"
POSITIONS = f"{MODEL}.override_config.max_position_embeddings"
# The hub's client repeats a request for minutes if nobody answers.
HUB_DEADLINE_S = 15.0
# A process of its own, since the client cannot be told to stop. It ends with 3 if the hub says no.
_FETCH = """
import sys
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
try:
    snapshot_download(sys.argv[1], local_dir=sys.argv[2], allow_patterns=["config.json", "*.py"])
except (GatedRepoError, HFValidationError, RepositoryNotFoundError) as error:
    print(str(error).strip().splitlines()[-1], file=sys.stderr)
    sys.exit(3)
except Exception as error:
    cause = error.__cause__ or error
    print(f"{type(cause).__name__}: {cause}".splitlines()[0], file=sys.stderr)
    sys.exit(1)
"""
_REFUSED = 3
# Names of exceptions in the words of transformers.
_TYPE = re.compile(r"\b[\w.]+(?:Error|Exception): ")


def find_local_path(value: str) -> Path | None:
    """``value`` as a path; None if it may name a model of the hub, as "Qwen/Qwen2.5-7B" does."""
    text = value.removeprefix("file://")
    path = Path(os.path.expanduser(text))
    return (
        path if path.is_absolute() or text.startswith((".", "~")) or os.path.exists(path) else None
    )


def is_remote(path: str) -> bool:
    """Whether verl copies the model from elsewhere when it starts; it does from HDFS only."""
    return is_non_local(path)


def check_model_paths(config: DictConfig) -> Findings:
    """verl can open each model that the run loads, as far as the path tells."""
    fields = [f"{MODEL}.{name}" for name in ("path", "hf_config_path", "tokenizer_path")]
    fields.append(f"{MODEL}.lora_adapter_path")
    if need_critic(config):
        fields.append("critic.model.path")
    if config.reward.reward_model.enable:
        fields.append("reward.reward_model.model_path")
    for field in fields:
        path = OmegaConf.select(config, field)
        if path is None:
            continue
        fault = find_path_fault(str(path))
        if fault is not None:
            yield ConfigError(f"{field}={path}: {fault}")
        elif is_remote(str(path)):
            yield NotChecked(f"{field}={path}: a remote folder, which verl copies when it starts")
        elif field not in (f"{MODEL}.path", f"{MODEL}.lora_adapter_path"):  # check_positions reads
            yield from _check_local_folder(field, str(path))


def _check_local_folder(field: str, path: str) -> Findings:
    local = find_local_path(path)
    if local is not None and not os.path.exists(local):
        yield ConfigError(f"{field}={path}: no such folder; name a folder, or a model of the hub")


def find_path_fault(path: str) -> str | None:
    """Why verl, whose rules for paths are fewer than a user expects, cannot open a model."""
    if path.startswith("file://"):
        return f"verl takes no file:// for models; write {path.removeprefix('file://')}"
    if path.endswith("/"):
        return f"verl refuses a slash at the end; write {path.rstrip('/') or path}"
    if path.startswith("~"):
        return f"verl does not expand ~; write {os.path.expanduser(path)}"
    if "://" in path and not is_remote(path):
        return (
            "verl copies models from hdfs:// only; copy it to a folder that all nodes see, and "
            "name that"
        )
    return None


def check_max_model_len(config: DictConfig) -> None:
    """Prompt and response together fit the rollout engine, as it is set."""
    rollout = config.actor_rollout_ref.rollout
    needed = rollout.prompt_length + rollout.response_length
    if rollout.max_model_len is not None and needed > rollout.max_model_len:
        raise ConfigError(
            f"{ROLLOUT}.max_model_len={rollout.max_model_len}: {needed} are needed; raise it or "
            "leave it null"
        )


def check_positions(config: DictConfig) -> None:
    """Prompt and response together fit the model."""
    if is_remote(config.actor_rollout_ref.model.path):
        return
    rollout = config.actor_rollout_ref.rollout
    needed = rollout.prompt_length + rollout.response_length
    limit = find_position_limit(config)
    if needed > limit:
        raise ConfigError(
            f"data.max_response_length={rollout.response_length}: with "
            f"data.max_prompt_length={rollout.prompt_length} that is {needed} tokens, above the "
            f"model's {limit} positions; shorten one of them"
        )
    if rollout.max_model_len is not None and rollout.max_model_len > limit:
        raise ConfigError(
            f"{ROLLOUT}.max_model_len={rollout.max_model_len}: above the model's {limit} positions;"
            " set it to at most as many, or leave it null"
        )


def find_position_limit(config: DictConfig) -> int:
    """The number of positions that verl's servers take, whatever the model's RoPE scaling says.

    Raises:
        ConfigError: the model does not tell it, or is none.
        OutOfReachError: the hub cannot be asked.
    """
    name, path = f"{MODEL}.path", config.actor_rollout_ref.model.path
    override = OmegaConf.select(config, POSITIONS)
    trusts_code = config.actor_rollout_ref.model.get("trust_remote_code", False)
    model = _try_model_config(path, trusts_code)
    if isinstance(model, ConfigError):
        raise model
    try:
        limit = override or get_max_position_embeddings(model)
    except ValueError as error:
        raise ConfigError(
            f"{name}={path}: config.json has no max_position_embeddings, which verl's rollout "
            f"servers need; set {POSITIONS}"
        ) from error
    except (TypeError, OverflowError):  # what stands there is no number
        limit = None
    if not isinstance(limit, int) or limit < 1:
        place = f"{POSITIONS}={override}" if override else f"{name}={path}: {_name_file(path)}"
        raise ConfigError(f"{place}: max_position_embeddings must be a whole number of 1 or more")
    return limit


def _name_file(path: str) -> str:
    return str((find_local_path(path) or Path(path)) / "config.json")


@cache
def _try_model_config(path: str, trusts_code: bool) -> Any:
    """What :func:`_read_model_config` returns or raises: a hub is not asked twice."""
    try:
        return _read_model_config(path, trusts_code)
    except ConfigError as error:
        return error


def _read_model_config(path: str, trusts_code: bool) -> Any:
    """The model's configuration, of transformers."""
    from transformers import AutoConfig

    name = f"{MODEL}.path"
    local = find_local_path(path)
    if local is not None:
        if not os.path.exists(local / "config.json"):
            raise ConfigError(f"{name}={path}: no model there ({local / 'config.json'} is missing)")
        _check_config_file(local / "config.json", f"{name}={path}")
    if local is None:
        try:
            return AutoConfig.from_pretrained(
                path, trust_remote_code=trusts_code, local_files_only=True
            )
        except (OSError, ValueError):
            pass  # not in the hub's cache
    with _fetch_model_config(path) if local is None else _open_folder(local) as folder:
        try:
            return AutoConfig.from_pretrained(str(folder), trust_remote_code=trusts_code)
        except Exception as error:  # transformers computes with whatever the file holds
            cause = _TYPE.sub("", " ".join(str(error).split())) or describe_exception(error)
            raise ConfigError(
                f"{name}={path}: cannot be read: {folder / 'config.json'}: {cause}"
            ) from error


def _check_config_file(file: Path, setting: str) -> None:
    """Refuse what transformers would not name: another kind of file, no object, no text as type."""
    try:
        check_text_file(file)
        content = json.loads(file.read_bytes())
    except InputError as error:
        raise ConfigError(f"{setting}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{setting}: cannot be read: {file}: not valid JSON ({error}); correct it"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{setting}: {file}: must be an object with the model's settings")
    if not isinstance(kind := content.get("model_type", ""), str):
        raise ConfigError(f"{setting}: {file}: model_type={kind}: must be a text, as in qwen2")


@contextmanager
def _open_folder(folder: Path) -> Iterator[Path]:
    yield folder


@contextmanager
def _fetch_model_config(name: str) -> Iterator[Path]:
    """A folder with the configuration of a model of the hub, for as long as the context lasts."""
    from huggingface_hub import constants

    field = f"{MODEL}.path={name}"
    advice = "give a folder, download the model before, or see to the network"
    if constants.is_offline_mode():
        raise OutOfReachError(
            f"{field}: not in the hub's cache, and the hub is switched off (HF_HUB_OFFLINE); "
            f"{advice}"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _FETCH, name, folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=HUB_DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise OutOfReachError(
                f"{field}: {constants.ENDPOINT} did not answer within {HUB_DEADLINE_S:g} s; "
                f"{advice}"
            ) from error
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == _REFUSED:
            raise ConfigError(f"{field}: no folder here, and the hub refuses it: {last}")
        if done.returncode:
            raise OutOfReachError(
                f"{field}: {constants.ENDPOINT} cannot be asked: {last}; {advice}"
            )
        yield Path(folder)
