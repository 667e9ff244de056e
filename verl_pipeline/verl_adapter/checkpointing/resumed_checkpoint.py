"""The checkpoint that a run goes on from: the newest complete one, or the one that the user names.

Invariants:
* Each checkpoint that is passed over is printed with the reason. A damaged one never ends a run
  while there is an older one that is complete.
* A run never begins anew because its checkpoints were lost: if none of those that once were
  complete can be used, it is refused, and the reasons are named.
* Whether its batches can be restored is seen before a model is loaded.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from verl_pipeline.curriculum.settings import make_selector
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.trainer.trajectory_keys import parse_batch
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    LATEST_STEP_FILE,
    MODELS,
    POSITION_FILE,
    QUEUE_SNAPSHOT,
    read_latest_step,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    MANIFEST,
    Part,
    find_damage,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import (
    FoundCheckpoint,
    examine_folder,
    list_checkpoints,
)
from verl_pipeline.verl_adapter.checks.queue_capacity import UNITS
from verl_pipeline.verl_adapter.trajectories.chosen_prompts import SELECTOR, find_foreign_state
from verl_pipeline.verl_adapter.trajectories.held_batches import (
    Columns,
    HeldBatchesError,
    count_snapshot_units,
    read_parts,
)

# Reads the parts of a model (its folder) where its ranks run; names one that is damaged.
DamageCheck = Callable[[Path, Sequence[Part]], str | None]
_SHOWN = 5


class ResumedCheckpoint:
    """What ``trainer.resume_mode`` chooses.

    Args:
        config: verl's.
        models: the models' folders that a checkpoint must hold.

    Raises:
        ConfigError: the checkpoint that the user names cannot be used, or none of those that the
            run has written, or the chosen one was written with settings that exclude these.
    """

    def __init__(self, config: DictConfig, models: Sequence[str]):
        self._config = config
        self._faults: list[str] = []
        self._has_lost = False
        settings = config.trainer
        self._folder = Path(settings.default_local_dir)
        self._is_named = settings.resume_mode == "resume_path"
        if self._is_named:
            self._candidates = [examine_folder(Path(settings.resume_from_path), models)]
        elif settings.resume_mode == "auto":
            self._candidates = list_checkpoints(self._folder, models)
        else:
            self._candidates = []
        self.found = self._take_next()

    def choose_undamaged(self, find_model_damage: DamageCheck) -> None:
        """Pass over checkpoints whose content is not what was written.

        Args:
            find_model_damage: reads the models' parts.

        Raises:
            ConfigError: as at the start.
        """
        while self.found is not None and self.found.manifest is not None:
            parts = [p for p in self.found.manifest.parts if p.path.startswith(_MODEL_PATHS)]
            damage = find_model_damage(self.found.folder, parts)
            if damage is None:
                break
            self._pass_over(self.found, damage)
            self.found = self._take_next()
        self._print_choice()

    @contextmanager
    def show_to_verl(self) -> Iterator[None]:
        """Inside, verl's settings name the chosen checkpoint; its marker counts for nothing."""
        settings = self._config.trainer
        given = (settings.resume_mode, settings.resume_from_path)
        settings.resume_mode = "disable" if self.found is None else "resume_path"
        settings.resume_from_path = None if self.found is None else str(self.found.folder)
        try:
            yield
        finally:
            settings.resume_mode, settings.resume_from_path = given

    def _take_next(self) -> FoundCheckpoint | None:
        while self._candidates:
            found = self._candidates.pop(0)
            fault = found.fault or _find_state_damage(found)
            if fault is None:
                self._check_units(found.folder)
                self._check_selector(found.folder)
                try:
                    self._check_batch_size(found.folder)
                    return found
                except HeldBatchesError as error:
                    fault = str(error)
            self._pass_over(found, fault)
        if self._is_named or self._has_lost:
            self._refuse()
        return None

    def _pass_over(self, found: FoundCheckpoint, fault: str) -> None:
        self._has_lost |= found.is_lost or found.fault is None
        self._faults.append(f"{found.folder.name}: {fault}")
        if not self._is_named:
            print(f"[resume] passed over: {found.folder}: {fault}", flush=True)

    def _refuse(self) -> None:
        if self._is_named:
            raise ConfigError(
                f"trainer.resume_from_path={self._config.trainer.resume_from_path}: no complete "
                f"checkpoint ({self._faults[0].partition(': ')[2]}); name another one, or set "
                "trainer.resume_mode=auto to go on from the newest that is complete"
            )
        more = f"; and {len(self._faults) - _SHOWN} more" if len(self._faults) > _SHOWN else ""
        raise ConfigError(
            f"trainer.default_local_dir={self._folder}: none of its checkpoints is complete any "
            f"more ({'; '.join(self._faults[:_SHOWN])}{more}); restore one, or begin anew in "
            "another folder"
        )

    def _print_choice(self) -> None:
        marked = read_latest_step(self._folder)
        if self.found is None:
            if (
                marked is not None
                and not self._faults
                and self._config.trainer.resume_mode == "auto"
            ):
                print(
                    f"[resume] begins anew: {self._folder / LATEST_STEP_FILE} names step {marked}, "
                    "and there is no checkpoint",
                    flush=True,
                )
            return
        manifest = self.found.manifest
        proof = (
            f"{len(manifest.parts)} checksums agree"
            if manifest
            else f"written by verl or an earlier version, without {MANIFEST}: what its files hold "
            "cannot be verified"
        )
        print(f"[resume] goes on from {self.found.folder} ({proof})", flush=True)
        if not (self.found.folder / POSITION_FILE).is_file():
            print(
                f"[resume] {self.found.folder} has no {POSITION_FILE}: the data loader begins at "
                "its first prompt",
                flush=True,
            )

    def _check_units(self, folder: Path) -> None:
        if (folder / HELD_BATCHES).exists():
            return
        wrote = count_snapshot_units(folder / QUEUE_SNAPSHOT)
        units = OmegaConf.select(self._config, UNITS)
        if wrote not in (None, units):
            raise ConfigError(
                f"{UNITS}={units}: an earlier version wrote {folder} with {wrote} storage "
                f"units; set {UNITS}={wrote} to resume from it (checkpoints written from "
                "then on fit any number)"
            )

    def _check_selector(self, folder: Path) -> None:
        """Whose batches follow; which training set they are of is seen when it has been read."""
        if not (folder / POSITION_FILE).is_file():
            return
        try:
            state = torch.load(folder / POSITION_FILE, weights_only=False)
        except Exception:  # verl's own load says what is wrong with it
            return
        selector = make_selector(load_pipeline_config(self._config).curriculum)
        if fault := find_foreign_state(state, None if selector is None else selector.name):
            raise ConfigError(f"{SELECTOR}: {folder} {fault}")

    def _check_batch_size(self, folder: Path) -> None:
        if not (folder / HELD_BATCHES).exists():
            return
        # The prompts of all batches are the file's first part.
        held: Columns = next(read_parts(folder / HELD_BATCHES), {"key": [], "tag": []})
        prompts = Counter(
            parse_batch(key)
            for key, tag in zip(held["key"], held["tag"], strict=True)
            if tag.get("is_prompt", False)
        )
        wanted = self._config.data.train_batch_size
        for batch, size in sorted(prompts.items()):
            if size != wanted:
                raise ConfigError(
                    f"data.train_batch_size={wanted}: batch {batch} in {folder} was sampled with "
                    f"{size} prompts; resume with data.train_batch_size={size}, or delete "
                    f"{HELD_BATCHES} and {MANIFEST} there to lose that batch"
                )


_MODEL_PATHS = tuple(f"{model}/" for model in MODELS)


def _find_state_damage(found: FoundCheckpoint) -> str | None:
    """Name a damaged part of what the trainer's process reads itself."""
    if found.manifest is None:
        return None
    parts = [part for part in found.manifest.parts if not part.path.startswith(_MODEL_PATHS)]
    return find_damage(found.folder, parts)
