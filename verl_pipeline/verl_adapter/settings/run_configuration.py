"""The reward in a run's own configuration, and where that file is.

    CHECKPOINTS/configuration-<n>.yaml    verl's whole configuration, as our entry point writes it
    RUN/.hydra/config.yaml                the same, as Hydra writes it for verl's
    RUN/.hydra/hydra.yaml                 among others the folder that the run was started in

Invariant: a configuration is a run's only if it lies in the run's checkpoint folder or names it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_FUNCTION = "reward.custom_reward_function"


class RunConfigError(ValueError):
    """A file is not the configuration of a run whose reward can be called; it names the file."""


@dataclass(frozen=True)
class RunReward:
    """The reward of a run.

    Attributes:
        path: file or module of the function; None: verl's default scorer.
        name, kwargs: ``name`` and ``reward_kwargs`` of ``reward.custom_reward_function``.
        manager: name of the reward manager.
    """

    path: str | None
    name: str
    kwargs: Mapping[str, Any]
    manager: str


def read_run_reward(file: Path) -> RunReward:
    """Return the reward that a run's configuration names.

    Raises:
        RunConfigError: it cannot be read, or its reward is no function.
    """
    config = _load(file)
    try:
        if OmegaConf.select(config, "reward") is None:
            raise RunConfigError(
                f"{file}: no section reward; name the run's .hydra/config.yaml, or give the reward "
                "by options.parquet.grader"
            )
        if OmegaConf.select(config, "reward.reward_model.enable"):
            raise RunConfigError(
                f"{file}: reward.reward_model.enable=True: an evaluation cannot call a reward "
                "model; give another reward by options.parquet.grader"
            )
        path = OmegaConf.select(config, f"{_FUNCTION}.path")
        kwargs = OmegaConf.select(config, f"{_FUNCTION}.reward_kwargs")
        return RunReward(
            path=_resolve_path(path, file) if path else None,
            name=str(OmegaConf.select(config, f"{_FUNCTION}.name") or "compute_score"),
            kwargs=OmegaConf.to_container(kwargs, resolve=True) if kwargs else {},
            manager=str(OmegaConf.select(config, "reward.reward_manager.name") or "naive"),
        )
    except OmegaConfBaseException as error:
        raise RunConfigError(f"{file}: {str(error).splitlines()[0]}") from error


def find_run_config(checkpoints: Path) -> Path | None:
    """Return the configuration of the run that writes ``checkpoints``, the newest if several."""
    found = [*checkpoints.glob("configuration-*.yaml")]
    found += [file for file in _list_hydra_files(checkpoints) if _writes_to(file, checkpoints)]
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def _list_hydra_files(checkpoints: Path) -> Iterator[Path]:
    """Hydra's files above the checkpoints and in its default folder below the current one."""
    for folder in (checkpoints, *list(checkpoints.parents)[:3]):
        if (file := folder / ".hydra/config.yaml").is_file():
            yield file
    yield from Path("outputs").glob("*/*/.hydra/config.yaml")


def _writes_to(file: Path, checkpoints: Path) -> bool:
    try:
        folder = OmegaConf.select(_load(file), "trainer.default_local_dir")
    except (RunConfigError, OmegaConfBaseException):  # the file of another program
        return False
    return bool(folder) and (_find_start_folder(file) / str(folder)).resolve() == (
        checkpoints.resolve()
    )


def _find_start_folder(file: Path) -> Path:
    """Return the folder in which a run was started: its relative paths begin there."""
    beside = file.with_name("hydra.yaml")
    if not beside.is_file():
        # In the checkpoint folder, whose path the run may have named from where it started.
        named = Path(str(OmegaConf.select(_load(file), "trainer.default_local_dir")))
        folder = file.resolve().parent
        starts = [] if named.is_absolute() else folder.parents
        return next((start for start in starts if start / named == folder), Path.cwd())
    try:
        settings: Any = OmegaConf.to_container(_load(beside), resolve=False)
    except RunConfigError:
        return Path.cwd()
    for key in ("hydra", "runtime", "cwd"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return Path(settings) if isinstance(settings, str) else Path.cwd()


def _resolve_path(path: str, file: Path) -> str:
    if path.startswith("pkg://"):
        return path
    return str(_find_start_folder(file) / os.path.expanduser(path.removeprefix("file://")))


def _load(file: Path) -> DictConfig:
    try:
        config = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunConfigError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise RunConfigError(f"{file}: not a configuration (fields with values)")
    return config
