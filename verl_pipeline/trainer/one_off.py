"""verl's trainer under the one-off pipelined schedule:
``trainer.v1.trainer_mode=one_off_pipeline``.

The order of events is in :mod:`verl_pipeline.trainer.schedule`; this file says what each event
means in verl.

Invariants:
* verl's own methods do the training; overridden is only where verl's order of events differs from
  the schedule's.
* Every batch that is trained was sampled by the one version the schedule gives (checked, batch by
  batch).
* Prompts come as in verl's ``sync`` mode, batch by batch, whatever the size of the data set.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline import doctor
from verl_pipeline.plugin import TRAINER_MODE
from verl_pipeline.trainer import prompts, schedule
from verl_pipeline.trainer.batch import Seen, check_failures, check_versions, reward_metrics
from verl_pipeline.trainer.checks import check_cluster, check_config, check_dataset
from verl_pipeline.trainer.config import PREFIX, ConfigError, load_pipeline_config, make_filters
from verl_pipeline.trainer.deadline import DeadlineExceeded
from verl_pipeline.trainer.derive import derive, effective_correction
from verl_pipeline.trainer.filtering import FilteringTrainer
from verl_pipeline.trainer.replay_buffer import InOrderReplayBuffer
from verl_pipeline.trainer.rollout_pool import CLOSE_S, RolloutPool, ask_actors, end_engines

logger = logging.getLogger(__name__)


@register_trainer(TRAINER_MODE)
class OneOffPipelineTrainer(FilteringTrainer):
    """PPO and GRPO with sampling of batch n+1 beside the update on batch n.

    Two pools: ``trainer.nnodes x trainer.n_gpus_per_node`` trains, ``rollout.nnodes x
    rollout.n_gpus_per_node`` samples. Method after DeepCoder's one-off pipelining (Agentica and
    Together AI, April 2025).

    Args:
        config: verl's configuration; completed in place (see :mod:`verl_pipeline.trainer.derive`).

    Raises:
        ConfigError: a setting that cannot work, before anything is loaded.
        doctor.NotActive: some part of this plugin is not in place in this process.
    """

    def __init__(self, config: DictConfig):
        doctor.require_active()
        self.pipeline = load_pipeline_config(config)
        check_config(config)
        check_cluster(config)
        self._derived = derive(config, self.pipeline)
        self.filters = make_filters(self.pipeline.filters, f"{PREFIX}.filters")
        self._sampled_with: dict[int, int] = {}
        self._submitted_at: dict[int, float] = {}
        self._batch: KVBatchMeta | None = None
        self._servers: Future[LLMServerManager] | None = None
        # Questions to the agent loop workers that are under way.
        self._asked: list[ray.ObjectRef] = []
        self._metrics: dict[str, Any] = {}
        # No rollout replicas on the trainer's devices (read by verl's _setup).
        self._enable_hybrid_replicas = False
        super().__init__(config)
        self._print_report()

    def _print_report(self) -> None:
        for derived in self._derived:
            print(f"[{TRAINER_MODE}] derived {derived}", flush=True)
        trainer, rollout = self.config.trainer, self.config.actor_rollout_ref.rollout
        print(
            f"[{TRAINER_MODE}] staleness {self.pipeline.staleness}; pools: {trainer.nnodes} x "
            f"{trainer.n_gpus_per_node} train, {rollout.nnodes} x {rollout.n_gpus_per_node} "
            f"sample; correction {self.pipeline.correction}: {effective_correction(self.config)}",
            flush=True,
        )

    # ---- set-up: verl's hooks
    # -------------------------------------------------------------------------------------

    def _build_replay_buffer(self) -> InOrderReplayBuffer:
        deadlines = self.pipeline.deadlines
        return InOrderReplayBuffer(
            deadline_s=deadlines.batch_s,
            watchdog=self._check_awaited,
            watch_every_s=deadlines.health_check_every_s,
        )

    def _check_awaited(self) -> None:
        """Raises if a rollout replica or an agent loop worker has died."""
        self.rollout_pool.check_health()
        workers = getattr(getattr(self, "agent_loop_manager", None), "agent_loop_workers", [])
        self._asked = ask_actors(workers, self._asked, "agent loop worker")

    def _init_dataloader(self) -> None:
        # verl forces single-prompt fetches on every mode but sync, to be able to refill; we never
        # refill, and with single fetches the batches of the second epoch would differ from sync's.
        with self._as_sync():
            super()._init_dataloader()
        check_dataset(self.config, len(self.train_dataset))
        self.last_step = min(
            self.total_training_steps, self.steps_per_epoch * self.config.trainer.total_epochs
        )

    def _init_resource_pool_mgr(self) -> None:
        # The pools share no process, so their engines start side by side.
        self._servers = ThreadPoolExecutor(max_workers=1).submit(
            LLMServerManager.create, config=self.config
        )
        super()._init_resource_pool_mgr()

    def _setup(self) -> None:
        with self._servers_end_on_error():
            super()._setup()
            manager = self._started_servers()
        self.rollout_pool = RolloutPool(
            self.config, manager, self.actor_rollout_wg, self.pipeline.deadlines
        )

    def _started_servers(self) -> LLMServerManager:
        assert self._servers is not None
        seconds = self.pipeline.deadlines.start_s
        try:
            return self._servers.result(timeout=seconds)
        except FutureTimeout as error:
            raise DeadlineExceeded(
                f"start of the rollout servers: not ready {seconds:g} s after the trainer was; look"
                " at the logs of the vLLM servers in Ray's session folder, or raise "
                f"{PREFIX}.deadlines.start_s for a large model"
            ) from error

    @contextmanager
    def _servers_end_on_error(self):
        """Any error ends the servers first (Ray kills them, and their shared memory would stay),
        and is then raised.
        """
        try:
            yield
        except BaseException:
            if self._servers is not None:
                try:
                    end_engines(self._servers.result(timeout=CLOSE_S))
                except Exception:
                    # The error under way is the cause, and must be the one that is shown.
                    logger.exception("the rollout servers could not be ended in order")
            raise

    def fit(self, agent_loop_manager) -> None:
        try:
            super().fit(agent_loop_manager)
        finally:
            end_engines(self.rollout_pool.manager)

    def get_llm_client(self):
        return self.rollout_pool.client()

    def on_init_end(self) -> None:
        with self._servers_end_on_error():
            self.send_weights(self.global_steps)

    def on_train_begin(self) -> None:
        """Called by verl with ``global_steps`` at the first step to come."""
        trained = self.global_steps - 1
        held = self._take_over_held_batches(trained)
        schedule.fill(
            self, trained=trained, held=held, staleness=self.pipeline.staleness, last=self.last_step
        )

    def _take_over_held_batches(self, trained: int) -> set[int]:
        """Batches that a checkpoint of v_trained brought along, sampled and not yet trained."""
        for batch, versions in self.replay_buffer.held_batches().items():
            if batch <= trained:
                self.replay_buffer.discard(batch)
                continue
            oldest = min(versions, default=trained)
            if oldest < batch - 1 - self.pipeline.staleness:
                raise ConfigError(
                    f"{PREFIX}.staleness={self.pipeline.staleness}: the checkpoint holds batch "
                    f"{batch}, sampled with v_{oldest}, which is older than this allows; resume "
                    "with the staleness it was written with"
                )
            self._sampled_with[batch] = oldest
        return set(self._sampled_with)

    # ---- the schedule's events
    # ------------------------------------------------------------------------------------

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Step ``global_steps`` of verl's fit loop."""
        self._metrics = metrics
        try:
            schedule.step(
                self, self.global_steps, staleness=self.pipeline.staleness, last=self.last_step
            )
        except Exception:
            # Who died shows first as whatever it broke: name it, if that is the cause.
            self._check_awaited()
            raise
        assert self._batch is not None
        return self._batch

    def drain(self) -> None:
        with marked_timer("wait_rollout", self._timing, color="red"):
            self.replay_buffer.drain()

    def send_weights(self, version: int) -> None:
        if self.rollout_pool.version == version:
            return
        given_up = self.replay_buffer.given_up
        with marked_timer("update_weights", self._timing, color="red"):
            self._metrics.update(self.rollout_pool.send_weights(version, given_up=len(given_up)))
        given_up.clear()

    def submit(self, batch: int) -> None:
        rows = self._next_train_batch()
        uids = [prompts.make_uid(batch, position) for position in range(len(rows))]
        tu.assign_non_tensor_stack(rows, "uid", uids)
        tu.assign_non_tensor_data(rows, "global_steps", batch)
        n = self.config.actor_rollout_ref.rollout.n
        sessions = tu.get(rows, "__rollout_n__", [n] * len(rows))
        tags = [
            {"is_prompt": True, "status": "pending", "global_steps": batch, "sessions": int(count)}
            for count in sessions
        ]
        tq.kv_batch_put(keys=uids, partition_id="train", tags=tags)
        assert self.rollout_pool.version is not None, "the schedule sends weights before it submits"
        self._sampled_with[batch] = self.rollout_pool.version
        self._submitted_at[batch] = time.time()
        self.agent_loop_manager.generate_sequences(rows)

    def train(self, batch: int) -> None:
        self._batch = self._step_once(
            self._metrics, self._timing, self.config.data.train_batch_size
        )

    @property
    def _timing(self) -> dict:
        """The current step's timers; before the first step there is nobody to read them."""
        return getattr(self, "timing_raw", {})

    # ---- boundaries
    # -----------------------------------------------------------------------------------------------

    def on_sample_end(self) -> None:
        return None

    def on_step_end(self) -> None:
        """Weights leave at the next step's drain, not here: the rollout pool is still sampling."""
        return None

    def on_validate_begin(self) -> None:
        schedule.before_validation(self, self.global_steps)

    def _save_checkpoint(self) -> None:
        schedule.before_checkpoint(self)
        super()._save_checkpoint()

    # ---- batch: checks
    # -------------------------------------------------------------------------------------------

    def group_sizes(self, batch: KVBatchMeta, seen: Seen, metrics: dict) -> dict[str, int]:
        """Check that the batch was sampled as it should be; returns the sessions that were asked
        for, by prompt.
        """
        k = self.global_steps
        expected = self._sampled_with.pop(k)
        check_versions(batch, k, expected, self.pipeline.staleness)
        metrics["pipeline/staleness"] = float(k - 1 - expected)
        metrics.update(reward_metrics(seen.reported))
        submitted_at = self._submitted_at.pop(k, None)
        if submitted_at and seen.generated_at:
            metrics["pipeline/rollout/generating_s"] = seen.generated_at - submitted_at
        losses = self.replay_buffer.losses.pop(k)
        metrics.update(check_failures(k, losses, seen.view, self.pipeline.max_infrastructure_share))
        return losses.group_sizes

    def _get_n_gpus_for_throughput(self) -> int:
        rollout = self.config.actor_rollout_ref.rollout
        return super()._get_n_gpus_for_throughput() + rollout.nnodes * rollout.n_gpus_per_node

    def _rollout_server_managers(self) -> list:
        return [self.rollout_pool.manager]

    @contextmanager
    def _as_sync(self):
        self.trainer_mode = "sync"
        try:
            yield
        finally:
            self.trainer_mode = TRAINER_MODE
