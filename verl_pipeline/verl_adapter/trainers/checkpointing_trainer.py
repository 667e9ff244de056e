"""The part of the pipelined trainer that writes, reads and resumes checkpoints.

Invariants:
* A checkpoint after step k holds the weights v_k, the complete batches that follow k without a gap,
  and the position of the data loader behind these.
* verl believes that its mode is ``sync`` while it saves and loads: it then leaves TransferQueue
  alone.
* The user's checkpoint callback is called once the checkpoint is complete and has its name.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.batch import check_held_version
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import Part
from verl_pipeline.verl_adapter.checkpointing.loader_positions import LoaderPositions
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.rollout.awaited_workers import AwaitedWorkers
from verl_pipeline.verl_adapter.trainers.dialed_trainer import DialedTrainer
from verl_pipeline.verl_adapter.trajectories.chosen_prompts import ChosenPrompts
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer


class _CallNotes:
    """In the place of verl's ``CheckpointCallback``: notes the calls of :meth:`on_save`."""

    def __init__(self) -> None:
        self.noted: list[dict[str, Any]] = []

    def on_save(self, **arguments: Any) -> None:
        self.noted.append(arguments)


class CheckpointingTrainer(DialedTrainer):
    """A subclass opens the checkpoints before verl's constructor runs."""

    trainer_mode: str
    replay_buffer: InOrderReplayBuffer
    _checkpoints: RunCheckpoints
    _positions: LoaderPositions | ChosenPrompts
    _awaited_workers: AwaitedWorkers
    checkpoint_callback: Any
    # By batch, from its submission or its restoration until it is checked.
    _sampling_versions: dict[int, int]

    def _load_checkpoint(self) -> None:
        with self._act_as_sync(), self._checkpoints.load_newest(self._find_damage):
            super()._load_checkpoint()
        self._checkpoints.restore_batches(self.global_steps)

    def _adopt_held_batches(self, trained_version: int) -> set[int]:
        """Batches in a checkpoint of ``trained_version`` that are sampled and not trained yet."""
        for batch, versions in self.replay_buffer.find_held_batches().items():
            oldest = min(versions, default=trained_version)
            check_held_version(batch, oldest, self.settings.most_staleness)
            self._sampling_versions[batch] = oldest
        return set(self._sampling_versions)

    def _save_checkpoint(self) -> None:
        with self._name_dead_process():
            with self.step_clock.inside("save_checkpoint"):
                drains = self.settings.drain_at_checkpoint
                schedule.prepare_checkpoint(self, self.settings.dial, drains)
            step, lead = self.global_steps, self.replay_buffer.find_complete_lead(self.global_steps)
            with self._act_as_sync(), self._positions.stand_before(lead + 1):
                with self._withhold_callback() as call_back:
                    folder = self._checkpoints.save_step(
                        step, lead, super()._save_checkpoint, self._seal_parts
                    )
                call_back(folder)
            self._checkpoints.prune(step)

    @contextmanager
    def _withhold_callback(self) -> Iterator[Callable[[Path], None]]:
        """Inside, verl calls nobody; yields what calls the user's callback, with the folder."""
        calls, given = _CallNotes(), self.checkpoint_callback
        self.checkpoint_callback = calls

        def call_back(folder: Path) -> None:
            for noted in calls.noted:
                given.on_save(**noted | {"checkpoint_dir": str(folder)})

        try:
            yield call_back
        finally:
            self.checkpoint_callback = given

    def _get_model_ranks(self) -> dict[str, Any]:
        """verl's worker groups by the model's folder in a checkpoint."""
        ranks = {"actor": self.actor_rollout_wg}
        return ranks | {"critic": self.critic_wg} if self.use_critic else ranks

    def _seal_parts(self, folder: Path) -> list[Part]:
        """Have each rank save and describe what it wrote below a step's folder."""
        return [
            part
            for model, ranks in self._get_model_ranks().items()
            for parts in ranks.seal_parts(str(folder), model)
            for part in parts
        ]

    def _find_damage(self, folder: Path, parts: Sequence[Part]) -> str | None:
        """Name a damaged part of a model; each rank reads those that it will load."""
        for model, ranks in self._get_model_ranks().items():
            own = [part for part in parts if part.path.startswith(f"{model}/")]
            if damage := next(filter(None, ranks.find_damaged_part(str(folder), own)), None):
                return damage
        return None

    def _check_processes(self) -> None:
        """Raises if a process that trajectories or rewards need has died."""
        self.rollout_pool.check_health()
        self._awaited_workers.check()

    @contextmanager
    def _name_dead_process(self):
        """Raise the error of a dead process: it shows first as whatever it broke."""
        try:
            yield
        except Exception:
            self._check_processes()
            raise

    @contextmanager
    def _act_as_sync(self):
        self.trainer_mode = "sync"
        try:
            yield
        finally:
            self.trainer_mode = TRAINER_MODE
