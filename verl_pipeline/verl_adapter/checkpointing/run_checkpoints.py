"""What our trainer does beside verl when a checkpoint is written, pruned or read.

Invariants:
* A checkpoint is complete or absent, its sampled batches included: verl writes it into a folder
  beside, which becomes the checkpoint by one rename (:mod:`.checkpoint_writer`).
* An earlier one is removed only after that. So a kill at any moment leaves one to resume from.
  (verl's engines remove earlier ones as soon as the actor is written.)
* Removed are only checkpoints that this run wrote under a limit, in any of its attempts.
* With Megatron's ``async_save`` verl writes on while the run goes on, so all of this is left to
  verl: such a checkpoint has no manifest.
"""

import errno
import os
import resource
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import (
    HELD_BATCHES,
    MODELS,
    QUEUE_SNAPSHOT,
    SCRATCH_PREFIX,
    get_step_folder,
    list_steps,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    MANIFEST,
    TOMBSTONE,
    Manifest,
    ManifestError,
    Part,
    read_manifest,
)
from verl_pipeline.verl_adapter.checkpointing.checkpoint_writer import (
    complete_parts,
    finish_removals,
    publish,
    remove_model,
    remove_scratch,
)
from verl_pipeline.verl_adapter.checkpointing.resumed_checkpoint import (
    DamageCheck,
    ResumedCheckpoint,
)
from verl_pipeline.verl_adapter.checkpointing.shared_folder import check_checkpoint_folder
from verl_pipeline.verl_adapter.trajectories.held_batches import (
    load_held_batches,
    load_snapshot,
    save_held_batches,
)

# verl's limits, by the model's folder in a checkpoint.
LIMITS = {"actor": "max_actor_ckpt_to_keep", "critic": "max_critic_ckpt_to_keep"}
ASYNC_SAVE = "actor_rollout_ref.actor.checkpoint.async_save"
# With less than this, a write that failed has failed for want of room.
_FULL_BYTES = 16 << 20

# Has each trainer rank save and describe its parts below a step's folder.
Seal = Callable[[Path], Sequence[Part]]


class RunCheckpoints:
    """The checkpoints of one run in ``trainer.default_local_dir``.

    Raises:
        ConfigError: nodes do not share the folder (:mod:`.shared_folder`), or there is no
            checkpoint that the settings could resume from (:mod:`.resumed_checkpoint`).
    """

    def __init__(self, config: DictConfig):
        self._config = config
        self._folder = Path(config.trainer.default_local_dir)
        self._models = ["actor", *(["critic"] if need_critic(config) else [])]
        check_checkpoint_folder(config)
        self._resumed = ResumedCheckpoint(config, self._models)
        if OmegaConf.select(config, ASYNC_SAVE):
            print(
                f"[checkpoints] {ASYNC_SAVE}=True: verl names and removes checkpoints itself; they "
                f"have no {MANIFEST}, and a kill may cost the newest one",
                flush=True,
            )
        manifests = self._read_manifests()
        self._serial = max((one.serial for one in manifests), default=0)
        # Steps that a limit may remove, oldest first, by model.
        goes_on = config.trainer.resume_mode == "auto"
        self._limited = {
            model: [one.step for one in manifests if goes_on and model in one.keep]
            for model in MODELS
        }

    def _read_manifests(self) -> list[Manifest]:
        found = []
        for step in list_steps(self._folder):
            for name in (MANIFEST, TOMBSTONE):
                with suppress(ManifestError):
                    if manifest := read_manifest(get_step_folder(self._folder, step), name):
                        found.append(manifest)
        return sorted(found, key=lambda one: one.serial)

    @contextmanager
    def load_newest(self, find_model_damage: DamageCheck) -> Iterator[None]:
        """Choose the checkpoint whose content is what was written; inside, verl loads that.

        Raises:
            ConfigError: there is none, but there has been one.
        """
        self._resumed.choose_undamaged(find_model_damage)
        with self._resumed.show_to_verl():
            yield

    def restore_batches(self, trained_step: int) -> None:
        """Put the held batches of the checkpoint that verl has loaded into TransferQueue."""
        if self._resumed.found is None:
            return
        folder = self._resumed.found.folder
        if (folder / HELD_BATCHES).exists():
            load_held_batches(folder / HELD_BATCHES)
        elif (folder / QUEUE_SNAPSHOT).is_dir():
            foreign = load_snapshot(folder / QUEUE_SNAPSHOT, trained_step)
            if foreign:
                print(
                    f"[resume] {foreign} prompts that another trainer mode had begun are left out: "
                    "the data loader goes on after them",
                    flush=True,
                )

    def save_step(self, step: int, lead: int, write: Callable[[], None], seal: Seal) -> Path:
        """Write a checkpoint; :meth:`prune` then removes those that a limit excludes.

        Args:
            step: the trained step.
            lead: the batches after ``step`` up to this one are in it.
            write: has verl write its part, below ``trainer.default_local_dir``. verl should
                believe that its mode is sync: it then leaves TransferQueue alone.
            seal: called after that.

        Returns:
            The step's folder.

        Raises:
            OutputError: the system refuses, as on a full disk; earlier checkpoints are intact.
        """
        place = get_step_folder(self._folder, step)
        if OmegaConf.select(self._config, ASYNC_SAVE):
            save_held_batches(place / HELD_BATCHES, step, lead)
            write()
            return place
        limits = self._read_limits()
        # A rank of a killed attempt may still write: it must not find this attempt's folder.
        scratch = self._folder / f"{SCRATCH_PREFIX}{uuid.uuid4().hex[:8]}"
        written = get_step_folder(scratch, step)
        try:
            remove_scratch(self._folder)
            # Makes room as verl's engines do, but never removes the last complete checkpoint.
            self._remove_beyond({model: max(keep - 1, 1) for model, keep in limits.items()})
            save_held_batches(written / HELD_BATCHES, step, lead)
            with self._write_into(scratch):
                write()
            parts = complete_parts(written, seal(written))
            manifest = Manifest(step, self._serial + 1, limits, tuple(parts))
            publish(scratch, self._folder, manifest)
        except BaseException as error:
            lack = _find_lack(self._folder, error)
            with suppress(OSError):  # the next one does it, too
                remove_scratch(self._folder)
            if lack is not None and isinstance(error, Exception):
                seen, fix = lack
                raise OutputError(
                    f"{self._folder}: {seen}, so the checkpoint of step {step} could not be "
                    f"written; earlier ones are intact: {fix} and run the same command"
                ) from error
            raise
        self._serial = manifest.serial
        for model in limits:
            kept = [other for other in self._limited[model] if other != step]
            self._limited[model] = [*kept, step]
        return place

    def prune(self, newest: int) -> None:
        """Remove the checkpoints that the limits exclude, now that ``newest`` is complete."""
        if OmegaConf.select(self._config, ASYNC_SAVE):
            self._remove_batches_without_model(newest)
        else:
            self._remove_beyond(self._read_limits())

    def _read_limits(self) -> dict[str, int]:
        settings = self._config.trainer
        if settings.get("remove_previous_ckpt_in_save", False):
            return dict.fromkeys(self._models, 1)
        limits = {model: settings.get(LIMITS[model]) for model in self._models}
        return {model: keep for model, keep in limits.items() if keep}

    @contextmanager
    def _write_into(self, scratch: Path) -> Iterator[None]:
        """Inside, verl writes there, and removes nothing."""
        settings = self._config.trainer
        names = (*LIMITS.values(), "remove_previous_ckpt_in_save")
        given = {name: settings[name] for name in names if name in settings}
        replaced = {**dict.fromkeys(given), "default_local_dir": str(scratch)}
        given["default_local_dir"] = settings.default_local_dir
        with open_dict(settings):
            settings.update(replaced)
            try:
                yield
            finally:
                settings.update(given)

    def _remove_beyond(self, limits: dict[str, int]) -> None:
        for model, keep in limits.items():
            for step in self._limited[model][:-keep]:
                remove_model(get_step_folder(self._folder, step), model)
            self._limited[model] = self._limited[model][-keep:]
        finish_removals(self._folder)

    def _remove_batches_without_model(self, newest: int) -> None:
        for step in list_steps(self._folder):
            folder = get_step_folder(self._folder, step)
            if step != newest and not all((folder / model).is_dir() for model in self._models):
                (folder / HELD_BATCHES).unlink(missing_ok=True)
                shutil.rmtree(folder / QUEUE_SNAPSHOT, ignore_errors=True)


def _find_lack(folder: Path, error: BaseException) -> tuple[str, str] | None:
    """What has run out when a checkpoint could not be written, and what to do; None if nothing has.

    verl's engines and torch hide the cause in errors of their own.
    """
    if shutil.disk_usage(folder).free < _FULL_BYTES:
        return "the disk is full", "free some space"
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
        is_left = True
    except OSError:
        is_left = False
    # Of a trainer rank, which has a limit of its own, the error tells.
    if is_left and os.strerror(errno.EMFILE) not in str(error):
        return None
    limit, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"no file descriptors are left (ulimit -n is {limit} here)", "raise that limit"
