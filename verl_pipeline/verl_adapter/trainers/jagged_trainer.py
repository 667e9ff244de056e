"""verl's trainer with a driver whose work grows with the trajectories, not with their tokens.

verl's driver fetches fields of every token, pads them to the longest response and computes on one
thread while all trainer devices wait. Here the ranks do what is per token, each on its own rows
(:mod:`.trainers.rank_worker`), and the driver reads what is a few numbers a trajectory: statistics
of the ranks, and the trajectory's tag.

Invariants:
* Every metric has verl's name and value; every field that a rank's update reads has verl's content.
* No field of every token passes the driver.
* What is not covered is verl's own method: bypass mode's copy of log-probs, critics, a KL penalty
  in the reward, estimators other than :data:`OUTCOME_ESTIMATORS`, MoE load metrics and speculative
  decoding.

Of verl's fields, ``log_probs``, ``entropy``, ``advantages`` and ``returns`` are not stored: nothing
of verl's reads them there but what is replaced here.
"""

import copy
import sys

import numpy as np
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import compute_throughout_metrics, compute_timing_metrics
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from verl_pipeline.verl_adapter.jagged import rank_fields
from verl_pipeline.verl_adapter.jagged.correction import NORM_FACTOR, describe_correction
from verl_pipeline.verl_adapter.jagged.log_probs import aggregate_rows, describe_probabilities
from verl_pipeline.verl_adapter.jagged.rank_fields import RowPlan
from verl_pipeline.verl_adapter.jagged.row_metrics import RowValues, compute_row_metrics
from verl_pipeline.verl_adapter.jagged.rows import sum_rows
from verl_pipeline.verl_adapter.trainers.rank_worker import use_rank_workers
from verl_pipeline.verl_adapter.trajectories.outcome_tags import find_untold
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    put_fields,
    read_fields,
    read_scores,
)

# Estimators of verl that give a row one advantage, which depends on nothing but the rewards and the
# groups.
OUTCOME_ESTIMATORS = {
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "gpg",
}


class JaggedTrainer(PPOTrainer):
    """verl's trainer; a subclass may set the advantage of some rows to 0."""

    # Keys of the current batch whose advantage becomes 0.
    _zeroed_keys: frozenset[str] = frozenset()
    # Of the current batch, by name of the column: float32, shape (n,).
    _statistics: dict[str, torch.Tensor] | None = None
    _row_values: RowValues | None = None

    @property
    def _knows_rows(self) -> bool:
        """Whether a row's advantage and its metrics follow from a few numbers of the row."""
        config, mtp = self.config, self.config.actor_rollout_ref.model.get("mtp", None)
        return bool(
            config.algorithm.adv_estimator in OUTCOME_ESTIMATORS
            and not config.algorithm.use_kl_in_reward
            and not self.use_critic
            and not config.actor_rollout_ref.rollout.get("moe_load_balance_metrics_interval", 0)
            and not (mtp is not None and mtp.enable and mtp.enable_rollout)
        )

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        use_rank_workers(self.role_worker_mapping)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Log-probs of the trainer's policy, stored as ``old_log_probs`` with all that follows from
        them, and their metrics.
        """
        correction = self.config.algorithm.get("rollout_correction", None)
        if correction and correction.get("bypass_mode", False):
            return super()._compute_old_log_prob(batch, metrics)
        settings, actor = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.actor
        is_corrected = settings.calculate_log_probs and self._knows_rows and correction is not None
        plan = RowPlan(
            rank_fields.OLD_LOG_PROBS,
            measured=True,
            compared=bool(settings.calculate_log_probs),
            correction=OmegaConf.to_container(correction, resolve=True) if is_corrected else None,
        )
        batch = self._run_plan(batch, plan, calculate_entropy=True)
        columns = _read_statistics(batch, plan)
        counts = columns["count"].long()
        metrics["actor/entropy"] = aggregate_rows(
            columns["entropy"],
            counts,
            actor.loss_agg_mode,
            scale=actor.loss_scale_factor,
            longest=int(_read_lengths(batch).max()),
        )
        if plan.compared:
            metrics.update(describe_probabilities(columns, counts))
        self._statistics = columns
        return batch

    def _run_plan(
        self, batch: KVBatchMeta, plan: RowPlan, *, in_reference: bool = False, **options
    ) -> KVBatchMeta:
        """Let the ranks compute log-probs and store what ``plan`` says; the batch as verl hands it
        on.
        """
        batch.extra_info.update(
            compute_loss=False,
            temperature=self.config.actor_rollout_ref.rollout.temperature,
            **{rank_fields.PLAN: plan},
            **options,
        )
        if in_reference and not self.ref_in_actor:
            output = self.ref_policy_wg.compute_ref_log_prob(batch)
        else:
            output = self.actor_rollout_wg.compute_log_prob(batch)
        assert len(output) == len(batch)
        handed_on = copy.copy(batch)  # to make one copies all tags
        handed_on.extra_info = {}
        return handed_on

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Log-probs of the reference policy, stored as ``ref_log_prob``."""
        options = {"no_lora_adapter": True} if self.ref_in_actor else {}
        plan = RowPlan(rank_fields.REF_LOG_PROB)
        return self._run_plan(batch, plan, in_reference=True, calculate_entropy=False, **options)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Advantages, stored one a row, and the metrics of the ranks' importance weights and
        rejection.
        """
        columns, self._statistics = self._statistics, None
        if not self._knows_rows:
            return super()._compute_advantage(batch, metrics)
        correction = self.config.algorithm.get("rollout_correction", None)
        counts = _read_counts(batch) if columns is None else columns["count"].long()
        norm_factor = None
        if columns is not None and "log_ratio" in columns:
            corrected = describe_correction(columns, counts, correction)
            metrics.update(corrected)
            norm_factor = corrected.get(NORM_FACTOR)
            if "left" in columns:
                counts = columns["left"].long()
        scores = _read_scores(batch)
        advantages, returns = self._estimate_rows(batch, scores, counts)
        zeroed = torch.tensor([key in self._zeroed_keys for key in batch.keys])
        advantages = advantages.masked_fill(zeroed, 0.0)
        self._row_values = RowValues(list(batch.keys), counts, scores, advantages, returns)
        fields = {rank_fields.ADVANTAGES: advantages}
        written = put_fields(batch.keys, batch.partition_id, fields)
        written.extra_info = {} if norm_factor is None else {rank_fields.NORM_FACTOR: norm_factor}
        return written

    def _estimate_rows(
        self, batch: KVBatchMeta, scores: torch.Tensor, counts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns by row, float32, shape (n,): verl's estimator on rows of one
        token that bears the whole reward, which counts if a token of the row does.
        """
        algorithm = self.config.algorithm
        column = {
            "token_level_scores": scores[:, None],
            "token_level_rewards": scores[:, None],
            "response_mask": (counts > 0).long()[:, None],
        }
        uids = np.array([key.rsplit("_", 2)[0] for key in batch.keys], dtype=object)
        data = DataProto(TensorDict(column, len(batch.keys)), non_tensor_batch={"uid": uids})
        data = compute_advantage_for_multi_trajectories(
            data,
            batch_keys=batch.keys,
            adv_estimator=algorithm.adv_estimator,
            gamma=algorithm.gamma,
            lam=algorithm.lam,
            num_repeat=self.config.actor_rollout_ref.rollout.n,
            norm_adv_by_std_in_grpo=algorithm.get("norm_adv_by_std_in_grpo", True),
            config=algorithm,
        )
        return data.batch["advantages"][:, 0], data.batch["returns"][:, 0]

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        """verl's metrics of a step."""
        if not self._knows_rows:
            super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
            return
        values, self._row_values = self._row_values, None
        assert values is not None and values.keys == batch.keys, "metrics of another batch"
        is_real = np.array([not tag.get("is_padding", False) for tag in batch.tags])
        shown = is_real if is_real.any() else ~is_real
        lengths = _read_lengths(batch)
        prompts = torch.tensor([tag["prompt_len"] for tag in batch.tags])
        everything = DataProto(
            TensorDict(
                {"prompt_length": prompts.float(), "response_length": lengths.float()},
                len(batch.keys),
            ),
            meta_info={"global_token_num": (prompts + lengths).tolist()},
        )
        turns = _read_turns(batch)[shown]
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        real_rows = torch.from_numpy(shown)
        metrics.update(compute_row_metrics(values, prompts, lengths, real_rows, turns))
        metrics.update(compute_timing_metrics(batch=everything, timing_raw=timing_raw))
        n_gpus = self._get_n_gpus_for_throughput()
        metrics.update(compute_throughout_metrics(everything, timing_raw, n_gpus=n_gpus))
        first, last = (
            np.array([tag[name] for tag in batch.tags], dtype=int)[is_real]
            for name in ("min_global_steps", "max_global_steps")
        )
        spreads = {
            "num_turns": turns,
            "off_policy/trajectory_spans": last - first + 1,
            "off_policy/trajectory_staleness": global_steps - 1 - last,
            "off_policy/trajectory_staleness_worst": global_steps - 1 - first,
        }
        for name, spread in spreads.items():
            metrics[f"training/{name}/mean"] = spread.mean()
            metrics[f"training/{name}/max"] = spread.max()
            metrics[f"training/{name}/min"] = spread.min()


def _read_lengths(batch: KVBatchMeta) -> torch.Tensor:
    """Response lengths, int64, shape (n,)."""
    return torch.tensor([tag["response_len"] for tag in batch.tags])


def _read_statistics(batch: KVBatchMeta, plan: RowPlan) -> dict[str, torch.Tensor]:
    """The ranks' statistics by name of the column, float32, shape (n,)."""
    names = rank_fields.name_columns(plan)
    data = read_fields(batch.keys, batch.partition_id, [rank_fields.STATISTICS])
    table = data.pop(rank_fields.STATISTICS)
    values = table.values() if table.is_nested else table
    return dict(zip(names, values.view(len(batch.keys), len(names)).unbind(1), strict=True))


def _read_counts(batch: KVBatchMeta) -> torch.Tensor:
    """Response tokens that count, by row, int64, shape (n,): ``response_mask``, fetched only if the
    tags do not tell it.
    """
    # A row of verl's padding has the tags of the row that it was made of.
    counts = [0 if tag.get("is_padding") else tag.get("mask_len", -1) for tag in batch.tags]
    if min(counts) >= 0:
        return torch.tensor(counts)
    data = read_fields(batch.keys, batch.partition_id, ["response_mask"])
    return sum_rows(data.pop("response_mask").values() > 0, _read_lengths(batch))


def _read_scores(batch: KVBatchMeta) -> torch.Tensor:
    """Reward of each row, float32, shape (n,)."""
    padding = {"score": 0.0}
    tags = [padding if tag.get("is_padding") else tag for tag in batch.tags]
    scores = torch.tensor([tag.get("score", 0.0) for tag in tags])
    untold = find_untold(tags, "score")
    if untold:
        keys = [batch.keys[row] for row in untold]
        scores[untold] = read_scores(keys, batch.partition_id)
    return scores


def _read_turns(batch: KVBatchMeta) -> np.ndarray:
    """Turns of each row's conversation, int64, shape (n,); 0 in verl's padding."""
    if find_untold(batch.tags, "num_turns"):
        data = read_fields(batch.keys, batch.partition_id, ["num_turns"])
        return np.array(data.pop("num_turns").tolist())
    return np.array([0 if tag.get("is_padding") else tag["num_turns"] for tag in batch.tags])


# As in filtering_trainer.py: the plugin's hook leaves the registration to whichever module of the
# two is imported first.
if "verl_pipeline.verl_adapter.trainers.filtering_trainer" not in sys.modules:
    import verl_pipeline.verl_adapter.trainers.filtering_trainer  # noqa: F401
