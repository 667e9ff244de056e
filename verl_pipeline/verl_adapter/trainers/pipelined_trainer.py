"""verl's trainer on the pipelined schedule: ``trainer.v1.trainer_mode=one_off_pipeline``.

:mod:`verl_pipeline.trainer.schedule` decides the order of events; this file says what each event
means in verl. A batch passes: :meth:`submit_batch` -> agent loops (:mod:`.rollout.agent_loop`) ->
replay buffer (:mod:`.trajectories.in_order_replay_buffer`) -> filters (:mod:`.filtering_trainer`)
-> verl's update.

Invariants:
* verl's own methods do the training. A method is overridden only where verl's order of events
  differs from the schedule's; the bases override more (:mod:`.jagged_trainer`).
* The one version that the schedule gives a batch has sampled every trajectory in it (checked for
  every batch).
* Prompts come as in verl's ``sync`` mode, batch by batch, whatever the size of the data set.
"""

import time
from typing import Any

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.batch import (
    TrajectoryBatch,
    check_failures,
    check_versions,
    compute_reward_metrics,
    compute_sampling_metrics,
)
from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    TRAINER_MODE,
    load_pipeline_config,
    make_filters,
)
from verl_pipeline.trainer.run_dial import STALENESS_FIELD, RunDial
from verl_pipeline.trainer.step_metrics import StepClock
from verl_pipeline.trainer.trajectory_keys import make_prompt_key
from verl_pipeline.verl_adapter.checkpointing.loader_positions import LoaderPositions
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.checks import seam_checks
from verl_pipeline.verl_adapter.checks.check_list import check_pipelined_config
from verl_pipeline.verl_adapter.checks.config_checks import check_dataset
from verl_pipeline.verl_adapter.checks.dial_checks import check_staleness
from verl_pipeline.verl_adapter.checks.queue_capacity import check_capacity
from verl_pipeline.verl_adapter.entry.start_report import describe_start
from verl_pipeline.verl_adapter.placement.ray_cluster import check_cluster
from verl_pipeline.verl_adapter.placement.reserved_pools import reserve_pools
from verl_pipeline.verl_adapter.rollout.awaited_workers import AwaitedWorkers
from verl_pipeline.verl_adapter.rollout.dispatched_pool import DispatchedPool
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.verl_adapter.rollout.rollout_servers import ServerStart, end_engines
from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings
from verl_pipeline.verl_adapter.telemetry.trainers import record_trainer
from verl_pipeline.verl_adapter.trainers.validating_trainer import ValidatingTrainer
from verl_pipeline.verl_adapter.trajectories.chosen_prompts import ChosenPrompts, choose_prompts
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer
from verl_pipeline.verl_adapter.trajectories.trajectory_store import put_prompts


@register_trainer(TRAINER_MODE)
@record_trainer
class OneOffPipelineTrainer(ValidatingTrainer):
    """PPO and GRPO where the trainer updates on batch n while the rollout pool samples batch n+1.

    Two pools: ``trainer.nnodes x trainer.n_gpus_per_node`` trains, ``rollout.nnodes x
    rollout.n_gpus_per_node`` samples. The method is DeepCoder's (Agentica and Together AI, 2025).

    Args:
        config: verl's configuration; completed in place (see :mod:`.settings.derived_settings`).

    Raises:
        ConfigError: a setting that cannot work, before anything is loaded.
        NotActive: some part of this plugin is not in place in this process.
    """

    # None: verl's data loader gives the prompts.
    _chosen: ChosenPrompts | None = None

    def __init__(self, config: DictConfig):
        seam_checks.require_active()
        self.settings = load_pipeline_config(config)
        check_pipelined_config(config)
        check_cluster(config)
        derived = derive_settings(config, self.settings)
        self._checkpoints = RunCheckpoints(config)
        self.filters = make_filters(self.settings.filters, f"{PIPELINE_KEY}.filters")
        self.dial = RunDial(self.settings)
        # By batch, from its submission until it is checked.
        self._sampling_versions: dict[int, int] = {}
        self._submission_times: dict[int, float] = {}
        self._batch: KVBatchMeta | None = None
        self._server_start = ServerStart()
        self.step_metrics: dict[str, Any] = {}
        self.step_clock = StepClock()
        # Read by verl's _setup: no rollout replicas on the trainer's devices.
        self._enable_hybrid_replicas = False
        super().__init__(config)
        for line in describe_start(config, self.settings, derived):
            print(f"[{TRAINER_MODE}] {line}", flush=True)

    # ---- set-up: verl's hooks ----------------------------------------------------------------

    def _build_replay_buffer(self) -> InOrderReplayBuffer:
        deadlines = self.settings.deadlines
        self._awaited_workers = AwaitedWorkers(self, deadlines)
        return InOrderReplayBuffer(
            deadline_s=deadlines.batch_s,
            watchdog=self._check_processes,
            watch_every_s=deadlines.health_check_every_s,
            find_idle_s=self._awaited_workers.find_idle_s,
            describe_pool=lambda: self.rollout_pool.describe(),
        )

    def _init_dataloader(self) -> None:
        # verl fetches single prompts in every mode but sync, to be able to refill batches. We never
        # refill, and with single fetches the batches of the second epoch would differ from sync's.
        with self._act_as_sync():
            super()._init_dataloader()
        check_dataset(self.config, len(self.train_dataset))
        check_capacity(self.config, len(self.val_dataset))
        epochs = self.config.trainer.total_epochs
        self.last_step = min(self.total_training_steps, self.steps_per_epoch * epochs)
        check_staleness(self.settings, self.last_step)
        self._chosen = choose_prompts(self.train_dataset, self.config, self.settings)
        if self._chosen is not None:
            self.train_dataloader = self._chosen
        self._positions = self._chosen or LoaderPositions(self.train_dataloader)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        pools = reserve_pools(self, self.settings.deadlines)
        # The pools share no process, so their engines start side by side.
        self._server_start.start_servers(self.config, pools.replicas)
        self.resource_pool_manager = pools

    def _setup(self) -> None:
        with self._server_start.end_servers_on_error():
            super()._setup()
            manager = self._server_start.wait_for_manager(self.settings.deadlines.start_s)
            self._awaited_workers.bound_reward_calls()
            pool = RolloutPool if self.settings.dial.has_barrier else DispatchedPool
            self.rollout_pool = pool(
                self.config, manager, self.actor_rollout_wg, self.settings.deadlines
            )

    def fit(self, agent_loop_manager) -> None:
        try:
            super().fit(agent_loop_manager)
        finally:
            self.rollout_pool.close()
            end_engines(self.rollout_pool.manager)

    def get_llm_client(self):
        return self.rollout_pool.make_client()

    def on_init_end(self) -> None:
        with self._server_start.end_servers_on_error():
            self.load_first_weights(self.global_steps)

    def on_train_begin(self) -> None:
        """verl calls this with ``global_steps`` already at the first step to come."""
        trained_version = self.global_steps - 1
        held_batches = self._adopt_held_batches(trained_version)
        self.dial.resume(trained_version, held_batches)
        with self._name_dead_process():
            schedule.fill_pipeline(
                self,
                trained_version=trained_version,
                held_batches=held_batches,
                dial=self.dial.current,
                last_step=self.last_step,
            )

    # ---- the schedule's events ---------------------------------------------------------------

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Step ``global_steps`` of verl's fit loop."""
        self.step_metrics = metrics
        self.step_clock.restart()
        with self._name_dead_process():
            schedule.run_step(
                self,
                self.global_steps,
                dial=self.dial.current,
                last_step=self.last_step,
                submitted=self.dial.submitted,
            )
        assert self._batch is not None
        return self._batch

    def drain_rollout(self) -> None:
        with marked_timer("wait_rollout", self.step_clock.events, color="red"):
            self.replay_buffer.wait_until_sampled()
            self._wait_for_validation()

    def submit_batch(self, batch: int) -> None:
        is_drained = self.settings.dial.has_barrier and self.settings.drain_at_checkpoint
        if self._chosen or (not is_drained and self.config.trainer.save_freq > 0):
            self._positions.note(batch)
        prompts = self._next_train_batch()
        keys = [make_prompt_key(batch, position) for position in range(len(prompts))]
        tu.assign_non_tensor_stack(prompts, "uid", keys)
        tu.assign_non_tensor_data(prompts, "global_steps", batch)
        n = self.config.actor_rollout_ref.rollout.n
        # A data set may ask for another group size, row by row.
        group_sizes = tu.get(prompts, "__rollout_n__", [n] * len(prompts))
        put_prompts(keys, batch, [int(size) for size in group_sizes])
        dial = self.dial.submit(batch, self.global_steps)
        if dial.has_barrier:
            assert self.rollout_pool.version is not None, "the schedule sends weights first"
            self._sampling_versions[batch] = self.rollout_pool.version
        else:
            tu.assign_non_tensor_data(prompts, STALENESS_FIELD, dial.staleness)
        self._submission_times[batch] = time.time()
        self.log_prob_check.ask(batch - 1)  # before the pool is busy
        self.agent_loop_manager.generate_sequences(prompts)

    def train_batch(self, batch: int) -> None:
        prompts = self.config.data.train_batch_size
        self._batch = self._step_once(self.step_metrics, self.timing_raw, prompts)

    # ---- boundaries --------------------------------------------------------------------------

    def on_sample_end(self) -> None:
        """Does nothing: the pool goes on sampling."""

    def on_step_end(self) -> None:
        """Weights leave at the next drain. The profile's flags are already the next step's."""
        goes_on = self.curr_step_profile and self.config.global_profiler.profile_continuous_steps
        if self.prev_step_profile and not goes_on:
            self._stop_rollout_profiling()

    # ---- checks of a complete batch ----------------------------------------------------------

    def check_batch(self, batch: TrajectoryBatch, metrics: dict) -> dict[str, int]:
        k, dial = self.global_steps, self.dial.take(self.global_steps)
        self._positions.forget(k)
        sampled_by = self._sampling_versions.pop(k, None)
        check_versions(batch, k, sampled_by if dial.has_barrier else None, dial)
        submitted_at = self._submission_times.pop(k, None)
        metrics.update(compute_sampling_metrics(batch, k, submitted_at))
        metrics.update(compute_reward_metrics(batch.session_reports))
        if self._chosen:
            metrics.update(self._chosen.observe(k, batch))
        report = self.replay_buffer.reports.pop(k)
        metrics.update(check_failures(k, report, batch, self.settings.max_infrastructure_share))
        return report.group_sizes

    # ---- what verl asks about the pools ------------------------------------------------------

    def _get_n_gpus_for_throughput(self) -> int:
        rollout = self.config.actor_rollout_ref.rollout
        return super()._get_n_gpus_for_throughput() + rollout.nnodes * rollout.n_gpus_per_node

    def _rollout_server_managers(self) -> list:
        return [self.rollout_pool.manager]
