"""verl's trainer with a driver whose work grows with the tokens, not with the longest response.

verl's driver fetches fields of every token, pads them to the longest response and computes on one
thread while all trainer devices wait. These methods do the same on the tokens that count
(:mod:`verl_pipeline.verl_adapter.jagged`), and read what is one number a trajectory from its tag.

Invariants:
* Every metric has verl's name and value; every field that a trainer rank reads has verl's content.
* Nothing is read twice: the log-probs of a step stay here from one method to the next.
* What is not covered is verl's own method: critics, a KL penalty in the reward, estimators other
  than :data:`OUTCOME_ESTIMATORS`, MoE load metrics and speculative decoding.

Two fields differ from verl's, and nothing of verl's reads them: without a critic ``returns`` is not
written, and ``entropy`` stays as the ranks wrote it.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import compute_throughout_metrics, compute_timing_metrics
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from verl_pipeline.verl_adapter.jagged.correction import compute_correction
from verl_pipeline.verl_adapter.jagged.log_probs import aggregate_tokens, compare_probabilities
from verl_pipeline.verl_adapter.jagged.row_metrics import RowValues, compute_row_metrics
from verl_pipeline.verl_adapter.jagged.rows import TokenRows, expand_rows
from verl_pipeline.verl_adapter.trajectories.outcome_tags import find_untold
from verl_pipeline.verl_adapter.trajectories.token_fields import (
    read_token_fields,
    write_token_fields,
)
from verl_pipeline.verl_adapter.trajectories.trajectory_store import read_fields, read_scores

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


@dataclass(frozen=True)
class _LogProbs:
    """A step's log-probs, float32, shape (C,): tokens that count, row after row of ``keys``."""

    keys: list[str]
    rows: TokenRows
    old: torch.Tensor
    rollout: torch.Tensor


class JaggedTrainer(PPOTrainer):
    """verl's trainer; a subclass may set the advantage of some rows to 0."""

    # Keys of the current batch whose advantage becomes 0.
    _zeroed_keys: frozenset[str] = frozenset()
    _log_probs: _LogProbs | None = None
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

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Log-probs of the trainer's policy, written as ``old_log_probs``, and their metrics."""
        correction = self.config.algorithm.get("rollout_correction", None)
        if correction and correction.get("bypass_mode", False):
            return super()._compute_old_log_prob(batch, metrics)
        settings, actor = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.actor
        batch.extra_info.update(
            calculate_entropy=True, compute_loss=False, temperature=settings.temperature
        )
        output = self.actor_rollout_wg.compute_log_prob(batch)
        assert len(output) == len(batch)
        rows = _read_rows(batch)
        names = ["rollout_log_probs"] if settings.calculate_log_probs else []
        data = read_token_fields(
            batch, rows.lengths, sequences=["entropy", "log_probs"], responses=names
        )
        metrics["actor/entropy"] = aggregate_tokens(
            rows.select(data.pop("entropy")).float(),
            rows.counts,
            actor.loss_agg_mode,
            scale=actor.loss_scale_factor,
            longest=int(rows.lengths.max()),
        )
        old = data.pop("log_probs")
        written = write_token_fields(batch, {"old_log_probs": old}, rows.lengths)
        self._log_probs = None
        if names:
            rollout = rows.select(data.pop("rollout_log_probs")).float()
            self._log_probs = _LogProbs(list(batch.keys), rows, rows.select(old).float(), rollout)
            metrics.update(compare_probabilities(self._log_probs.old, rollout, rows.counts))
        return written

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Log-probs of the reference policy, written as ``ref_log_prob``."""
        temperature = self.config.actor_rollout_ref.rollout.temperature
        batch.extra_info.update(
            calculate_entropy=False, compute_loss=False, temperature=temperature
        )
        if self.ref_in_actor:
            batch.extra_info["no_lora_adapter"] = True
            output = self.actor_rollout_wg.compute_log_prob(batch)
        else:
            output = self.ref_policy_wg.compute_ref_log_prob(batch)
        assert len(output) == len(batch)
        lengths = _read_lengths(batch)
        data = read_token_fields(batch, lengths, sequences=["log_probs"])
        write_token_fields(batch, {"ref_log_prob": data["log_probs"]}, lengths)
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Importance weights, rejection and advantages, written for the trainer's ranks."""
        if not self._knows_rows:
            self._log_probs = None
            return super()._compute_advantage(batch, metrics)
        fields: dict[str, torch.Tensor] = {}
        log_probs, self._log_probs = self._log_probs, None
        correction = self.config.algorithm.get("rollout_correction", None)
        bypassed = correction and correction.get("bypass_mode", False)
        if correction is not None and not bypassed and log_probs is not None:
            assert log_probs.keys == batch.keys, "the batch changed between two methods of a step"
            rows = log_probs.rows
            corrected = compute_correction(
                log_probs.old, log_probs.rollout, rows.counts, correction
            )
            metrics.update(corrected.metrics)
            if corrected.weights is not None:
                fields["rollout_is_weights"] = rows.spread(corrected.weights)
            if corrected.kept is not None:
                rows = rows.keep(corrected.kept)
                assert rows.mask is not None
                fields["response_mask"] = rows.mask.long()
        else:
            rows = _read_rows(batch)
        counts, scores = rows.counts, _read_scores(batch)
        advantages, returns = self._estimate_rows(batch, scores, counts)
        zeroed = torch.tensor([key in self._zeroed_keys for key in batch.keys])
        advantages = advantages.masked_fill(zeroed, 0.0)
        self._row_values = RowValues(list(batch.keys), counts, scores, advantages, returns)
        fields["advantages"] = rows.spread(expand_rows(advantages, counts))
        return write_token_fields(batch, fields, rows.lengths)

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


def _read_rows(batch: KVBatchMeta) -> TokenRows:
    """Which response tokens count: ``response_mask``, fetched only if the tags do not tell it."""
    lengths = _read_lengths(batch)
    # A row of verl's padding has the tags of the row that it was made of.
    counts = [0 if tag.get("is_padding") else tag.get("mask_len", -1) for tag in batch.tags]
    counted = torch.tensor(counts)
    if torch.equal(counted, lengths):
        return TokenRows(lengths)
    if bool(((counted == 0) | (counted == lengths)).all()):
        return TokenRows(lengths, torch.repeat_interleave(counted > 0, lengths))
    data = read_fields(batch.keys, batch.partition_id, ["response_mask"])
    return TokenRows(lengths, data.pop("response_mask").values() > 0)


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
