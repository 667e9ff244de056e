"""What our trainer does beside verl when a checkpoint is written, pruned or read.

Invariants:
* A checkpoint is complete before verl's marker names it, its held batches included, and an earlier
  one is removed only after that. So a kill at any moment leaves one to resume from. (verl's engines
  remove earlier ones as soon as the actor is written. With ``async_save`` that is left to them.)
* Removed are, as by verl, only checkpoints that this run wrote. The batches beside a model that is
  gone go with it, whoever removed it.
* Whether a checkpoint's batches can be restored is seen before a model is loaded.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.trainer.trajectory_keys import parse_batch
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    get_step_folder,
    list_steps,
    read_latest_step,
    repair_marker,
)
from verl_pipeline.verl_adapter.checkpointing.shared_folder import check_checkpoint_folder
from verl_pipeline.verl_adapter.checks.queue_capacity import UNITS
from verl_pipeline.verl_adapter.trajectories.held_batches import (
    FILE_NAME,
    SNAPSHOT_NAME,
    Columns,
    count_snapshot_units,
    load_held_batches,
    load_snapshot,
    read_parts,
    save_held_batches,
)

# verl's limits, by the model's folder in a checkpoint.
LIMITS = {"actor": "max_actor_ckpt_to_keep", "critic": "max_critic_ckpt_to_keep"}


class RunCheckpoints:
    """The checkpoints of one run in ``trainer.default_local_dir``.

    Raises:
        ConfigError: nodes do not share the folder (:mod:`.shared_folder`), or the checkpoint to
            resume from was written for another TransferQueue.
        HeldBatchesError: its held batches cannot be read.
    """

    def __init__(self, config: DictConfig):
        self._config = config
        self._folder = Path(config.trainer.default_local_dir)
        self._models = ["actor", *(["critic"] if need_critic(config) else [])]
        self._saved: list[int] = []
        check_checkpoint_folder(config)
        self._check_resumed()

    def _find_resumed(self) -> Path | None:
        """The folder of the checkpoint that verl will load; None if it begins anew."""
        settings = self._config.trainer
        if settings.resume_mode == "resume_path":
            return Path(settings.resume_from_path)
        step = read_latest_step(self._folder) if settings.resume_mode == "auto" else None
        if step is None:
            return None
        folder = get_step_folder(self._folder, step)
        return folder if folder.is_dir() else None

    def _check_resumed(self) -> None:
        if self._config.trainer.resume_mode == "auto":
            repair_marker(self._folder)
        folder = self._find_resumed()
        if folder is None:
            return
        if (folder / FILE_NAME).exists():
            self._check_batch_size(folder)
            return
        wrote = count_snapshot_units(folder / SNAPSHOT_NAME)
        units = OmegaConf.select(self._config, UNITS)
        if wrote not in (None, units):
            raise ConfigError(
                f"{UNITS}={units}: an earlier version wrote {folder} with {wrote} storage "
                f"units; set {UNITS}={wrote} to resume from it (checkpoints written from "
                "then on fit any number)"
            )

    def _check_batch_size(self, folder: Path) -> None:
        # The prompts of all batches are the file's first part.
        held: Columns = next(read_parts(folder / FILE_NAME), {"key": [], "tag": []})
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
                    f"{folder / FILE_NAME} to lose that batch"
                )

    def restore_batches(self, trained_step: int) -> None:
        """Put the held batches of the checkpoint that verl has loaded into TransferQueue."""
        folder = self._find_resumed()
        if folder is None:
            return
        if (folder / FILE_NAME).exists():
            load_held_batches(folder / FILE_NAME)
        elif (folder / SNAPSHOT_NAME).is_dir():
            foreign = load_snapshot(folder / SNAPSHOT_NAME, trained_step)
            if foreign:
                print(
                    f"[resume] {foreign} prompts that another trainer mode had begun are left out: "
                    "the data loader goes on after them",
                    flush=True,
                )

    @contextmanager
    def save_step(self, step: int, lead: int) -> Iterator[None]:
        """Write the batches after ``step`` up to ``lead``, let verl write its part inside, then
        prune.

        verl should believe in there that its mode is sync: it then leaves TransferQueue alone.

        Raises:
            OutputError: the held batches cannot be written; earlier checkpoints are intact.
        """
        save_held_batches(get_step_folder(self._folder, step) / FILE_NAME, step, lead)
        limits = self._read_limits()
        if OmegaConf.select(self._config, "actor_rollout_ref.actor.checkpoint.async_save"):
            yield
        else:
            # Makes room as verl's engines do, but never removes the last complete checkpoint.
            self._remove_models({model: max(keep - 1, 1) for model, keep in limits.items()})
            with self._without_limits():
                yield
            self._saved.append(step)
            self._remove_models(limits)
        self._remove_batches_without_model(step)

    def _read_limits(self) -> dict[str, int]:
        settings = self._config.trainer
        if settings.get("remove_previous_ckpt_in_save", False):
            return dict.fromkeys(self._models, 1)
        limits = {model: settings.get(LIMITS[model]) for model in self._models}
        return {model: keep for model, keep in limits.items() if keep}

    @contextmanager
    def _without_limits(self) -> Iterator[None]:
        settings = self._config.trainer
        names = (*LIMITS.values(), "remove_previous_ckpt_in_save")
        given = {name: settings[name] for name in names if name in settings}
        with open_dict(settings):
            settings.update(dict.fromkeys(given))
            try:
                yield
            finally:
                settings.update(given)

    def _remove_models(self, limits: dict[str, int]) -> None:
        for model, keep in limits.items():
            for step in self._saved[:-keep]:
                shutil.rmtree(get_step_folder(self._folder, step) / model, ignore_errors=True)

    def _remove_batches_without_model(self, newest: int) -> None:
        for step in list_steps(self._folder):
            folder = get_step_folder(self._folder, step)
            if step != newest and not all((folder / model).is_dir() for model in self._models):
                (folder / FILE_NAME).unlink(missing_ok=True)
                shutil.rmtree(folder / SNAPSHOT_NAME, ignore_errors=True)
