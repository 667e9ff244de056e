"""The part of the pipelined trainer that writes, reads and resumes checkpoints.

Invariants:
* A checkpoint after step k holds the weights v_k, the complete batches that follow k without a gap,
  and the position of the data loader behind these.
* verl believes that its mode is ``sync`` while it saves and loads: it then leaves TransferQueue
  alone.
"""

from contextlib import contextmanager

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.batch import check_held_version
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.verl_adapter.checkpointing.loader_positions import LoaderPositions
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.rollout.awaited_workers import AwaitedWorkers
from verl_pipeline.verl_adapter.trainers.dialed_trainer import DialedTrainer
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer


class CheckpointingTrainer(DialedTrainer):
    """A subclass opens the checkpoints before verl's constructor runs."""

    trainer_mode: str
    replay_buffer: InOrderReplayBuffer
    _checkpoints: RunCheckpoints
    _positions: LoaderPositions
    _awaited_workers: AwaitedWorkers
    # By batch, from its submission or its restoration until it is checked.
    _sampling_versions: dict[int, int]

    def _load_checkpoint(self) -> None:
        with self._act_as_sync():
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
                schedule.prepare_checkpoint(self, self.settings.dial)
            step, lead = self.global_steps, self.replay_buffer.find_complete_lead(self.global_steps)
            with (
                self._act_as_sync(),
                self._checkpoints.save_step(step, lead),
                self._positions.stand_before(lead + 1),
            ):
                super()._save_checkpoint()

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
