"""Our driver's methods against verl's own on the same rows of a real TransferQueue."""

import numpy as np
import pytest
import ray
import torch
import transfer_queue as tq
import verl.trainer.ppo.v1  # noqa: F401  (registers our trainers; they import each other)
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_pipeline.filters.truncation import LengthLimits
from verl_pipeline.verl_adapter.jagged.rank_fields import NORM_FACTOR, PLAN, prepare_update
from verl_pipeline.verl_adapter.jagged.rows import make_nested
from verl_pipeline.verl_adapter.trainers.jagged_trainer import OUTCOME_ESTIMATORS, JaggedTrainer
from verl_pipeline.verl_adapter.trainers.rank_worker import replace_log_probs
from verl_pipeline.verl_adapter.trajectories.outcome_tags import describe_outcome
from verl_pipeline.verl_adapter.trajectories.trajectory_store import read_trajectories

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROMPTS, SESSIONS = 5, 3
# What a trainer rank's update reads of the fields that a step adds.
READ_BY_RANKS = ("old_log_probs", "advantages", "rollout_is_weights", "response_mask")


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init()
    yield
    tq.close()
    ray.shutdown()


class Ranks:
    """Stores what a trainer rank does of its log-probs, without a model: verl's or our worker."""

    def compute_log_prob(self, batch):
        generator = torch.Generator().manual_seed(3)
        lengths = torch.tensor([tag["seq_len"] for tag in batch.tags])
        values = -2 * torch.rand(int(lengths.sum()), generator=generator)
        fields = {
            "log_probs": make_nested(values, lengths),
            "entropy": make_nested(-values, lengths),
        }
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        output = replace_log_probs(
            tq.kv_batch_get(**where),
            TensorDict(fields, len(batch.keys)),
            batch.extra_info.get(PLAN),
        )
        tq.kv_batch_put(**where, fields=output)
        return batch

    compute_ref_log_prob = compute_log_prob


def make_config(estimator="grpo", **correction):
    return OmegaConf.create(
        {
            "algorithm": {
                "adv_estimator": estimator,
                "use_kl_in_reward": False,
                "gamma": 1.0,
                "lam": 1.0,
                "norm_adv_by_std_in_grpo": True,
                "rollout_correction": {
                    "rollout_is": "token",
                    "rollout_is_threshold": 2.0,
                    "bypass_mode": False,
                    **correction,
                },
            },
            "actor_rollout_ref": {
                "model": {},
                "actor": {"loss_agg_mode": "token-mean", "loss_scale_factor": None},
                "rollout": {
                    "n": SESSIONS,
                    "temperature": 1.0,
                    "calculate_log_probs": True,
                    "moe_load_balance_metrics_interval": 0,
                },
            },
        }
    )


def make_trainer(trainer_class, config):
    hooks = dict.fromkeys(("on_sample_end", "on_step_end"), lambda self: None)
    trainer = object.__new__(type("Trainer", (trainer_class,), hooks))
    trainer.config = config
    trainer.use_critic = trainer.ref_in_actor = False
    trainer.actor_rollout_wg = trainer.ref_policy_wg = Ranks()
    trainer._rollout_moe_lb_metrics_accumulator = None
    trainer._get_n_gpus_for_throughput = lambda: 2
    return trainer


def put_batch(partition, *, told=True, partly_masked=True, padding=2, split=True):
    """Trajectories as agent loops store them; one session in two rows if ``split``."""
    generator = np.random.default_rng(0)
    names = [f"b1p{p}_{s}_0" for p in range(PROMPTS) for s in range(SESSIONS)]
    if split:
        names.insert(1, "b1p0_0_1")
    rewards = dict.fromkeys(names, 0.0) | {name: float(generator.integers(0, 3)) for name in names}
    if split:
        rewards["b1p0_0_0"] = rewards["b1p0_0_1"]
    names += [f"padx_{n}_0" for n in range(padding)]
    rows, tags = [], []
    for name in names:
        is_padding = name.startswith("pad")
        prompt, length = (127, 1) if is_padding else map(int, generator.integers(1, 30, 2))
        mask = np.ones(length, dtype=int)
        if partly_masked and length > 2:
            mask[: length // 3] = 0
        if is_padding:
            mask[:] = 0
        response = torch.from_numpy(generator.integers(5, 90, length))
        scores = torch.zeros(length)
        scores[-1] = rewards.get(name, 0.0)
        extra = {"generated_at": 7.0, "reward_extra_info": {"verdict": "passed", "grader": "math"}}
        rows.append(
            {
                "prompts": torch.ones(prompt, dtype=torch.int64),
                "responses": response,
                "response_mask": torch.from_numpy(mask),
                "rollout_log_probs": -2 * torch.from_numpy(generator.random(length)).float(),
                "rm_scores": scores,
                "num_turns": 0 if is_padding else int(generator.integers(1, 5)),
                "uid": name.rsplit("_", 2)[0],
                "extra_fields": extra,
            }
        )
        tag = {
            "status": "success", "prompt_len": prompt, "response_len": length,
            "seq_len": prompt + length, "min_global_steps": 0, "max_global_steps": 0,
        }  # fmt: skip
        if is_padding:  # verl copies the tags of the first row
            tag = {**tags[0], **tag, "is_padding": True}
        elif told:
            tag |= describe_outcome(
                reward=rewards[name], response=response.tolist(), mask=mask.tolist(),
                num_turns=rows[-1]["num_turns"], extra_fields=extra,
            )  # fmt: skip
        tags.append(tag)
    fields = {
        name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
        for name in ("prompts", "responses", "response_mask", "rollout_log_probs", "rm_scores")
    }
    fields["num_turns"] = torch.tensor([row["num_turns"] for row in rows])
    for name in ("uid", "extra_fields"):
        fields[name] = NonTensorStack(*[row[name] for row in rows])
    order = generator.permutation(len(names)).tolist()
    tq.kv_batch_put(
        keys=names, partition_id=partition, fields=TensorDict(fields, len(names)), tags=tags
    )
    return KVBatchMeta(
        partition_id=partition,
        keys=[names[row] for row in order],
        tags=[tags[row] for row in order],
    )


def run_driver(trainer, batch):
    """The metrics of a step, and the fields that the ranks then read."""
    metrics = {}
    batch = trainer._compute_old_log_prob(batch, metrics)
    batch = trainer._compute_ref_log_prob(batch, metrics)
    batch = trainer._compute_advantage(batch, metrics)
    stored = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id)
    prepare_update(stored, batch.extra_info.get(NORM_FACTOR))
    timing = {"step": 2.0, "gen": 1.0, "adv": 0.5}
    trainer._compute_metrics(batch, metrics, timing, global_steps=1, epoch=0)
    tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
    return metrics, {
        name: stored[name].values() for name in (*READ_BY_RANKS, "ref_log_prob") if name in stored
    }


def assert_equal_to_verls(config, **batch):
    expected, stored = run_driver(make_trainer(PPOTrainer, config), put_batch("verl", **batch))
    metrics, ours = run_driver(make_trainer(JaggedTrainer, config), put_batch("ours", **batch))
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        slack = 2e-3 if "std" in name else 2e-5
        assert metrics[name] == pytest.approx(value, rel=2e-4, abs=slack, nan_ok=True), name
    assert ours.keys() == stored.keys()
    for name, values in stored.items():
        assert ours[name].dtype == values.dtype, name
        torch.testing.assert_close(
            ours[name], values, rtol=2e-4, atol=1e-6, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("estimator", sorted(OUTCOME_ESTIMATORS))
def test_estimators_equal_verls(estimator):
    # Pass@k needs two members in each group, which verl's padding rows are not.
    assert_equal_to_verls(make_config(estimator), padding=2 if estimator != "grpo_passk" else 0)


@pytest.mark.parametrize(
    "batch",
    [
        {"told": False},
        {"partly_masked": False},
        {"partly_masked": False, "padding": 0, "split": False},
        {"told": False, "partly_masked": False, "padding": 0},
    ],
)
def test_rows_of_other_workers_padding_and_whole_masks(batch):
    assert_equal_to_verls(make_config(), **batch)


@pytest.mark.parametrize(
    "correction",
    [
        {"rollout_is": None},
        {"rollout_is": "sequence", "rollout_is_threshold": "0.5_3.0"},
        {"rollout_is_batch_normalize": True},
        {"rollout_is": "sequence", "rollout_is_batch_normalize": True},
        {"rollout_rs": "token_k1,seq_mean_k3", "rollout_rs_threshold": "0.3_2.5,0.9"},
        {"bypass_mode": True},
    ],
)
def test_corrections_equal_verls(correction):
    assert_equal_to_verls(make_config(**correction))


@pytest.mark.parametrize("estimator", ["opo", "reinforce_plus_plus_baseline"])
def test_other_estimators_are_verls_own(estimator):
    assert_equal_to_verls(make_config(estimator))


def test_every_estimator_of_verl_is_either_covered_or_verls_own():
    """A new estimator of verl's is padded until somebody shows that it may be covered."""
    known = {str(estimator.value) for estimator in AdvantageEstimator}
    assert known >= OUTCOME_ESTIMATORS
    assert known - OUTCOME_ESTIMATORS == {
        "gae", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax", "opo", "gdpo",
        "optimal_token_baseline", "tir_optimal_token_baseline",
    }  # fmt: skip


def test_zeroed_rows_are_written_once():
    trainer, batch = make_trainer(JaggedTrainer, make_config()), put_batch("zero", padding=0)
    trainer._zeroed_keys = frozenset(batch.keys[:4])
    metrics = {}
    batch = trainer._compute_advantage(trainer._compute_old_log_prob(batch, metrics), metrics)
    stored = tq.kv_batch_get(keys=batch.keys, partition_id="zero")
    prepare_update(stored, None)
    stored = stored["advantages"].unbind()
    assert not any(bool(row.any()) for row in stored[:4])
    assert any(bool(row.any()) for row in stored[4:])
    tq.kv_clear(keys=batch.keys, partition_id="zero")


def test_tags_tell_what_the_fields_do():
    limits = LengthLimits(30, 12, 60, frozenset({7}))
    told = put_batch("told", padding=0)
    untold = put_batch("untold", padding=0, told=False)
    ours, theirs = read_trajectories(told, limits), read_trajectories(untold, limits)
    assert ours.generated_at == theirs.generated_at == 7.0
    assert ours.reward_reports == theirs.reward_reports
    for name in ("rewards", "response_lengths", "limits", "truncated", "sessions"):
        assert np.array_equal(getattr(ours.view, name), getattr(theirs.view, name)), name
    assert ours.view.truncated.any() and ours.view.verdicts == theirs.view.verdicts
    for batch in (told, untold):
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)


def test_no_field_of_every_token_passes_the_driver(monkeypatch):
    batch = put_batch("few")
    trainer, metrics, fetched, stored = make_trainer(JaggedTrainer, make_config()), {}, [], []
    get, put, ranks = tq.kv_batch_get, tq.kv_batch_put, trainer.actor_rollout_wg.compute_log_prob

    def run_ranks(rows):
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(tq, "kv_batch_get", get)
            inside.setattr(tq, "kv_batch_put", put)
            return ranks(rows)

    trainer.actor_rollout_wg.compute_log_prob = run_ranks
    monkeypatch.setattr(
        tq, "kv_batch_get",
        lambda **kwargs: fetched.append(sorted(kwargs["select_fields"])) or get(**kwargs),
    )  # fmt: skip
    monkeypatch.setattr(
        tq, "kv_batch_put",
        lambda **kwargs: stored.append(sorted(kwargs["fields"].keys())) or put(**kwargs),
    )  # fmt: skip
    read_trajectories(batch, LengthLimits(30, 12, 60, frozenset({7})))
    batch = trainer._compute_old_log_prob(batch, metrics)
    batch = trainer._compute_advantage(batch, metrics)
    trainer._compute_metrics(batch, metrics, {"step": 1.0}, global_steps=1, epoch=0)
    assert fetched == [["row_statistics"]]
    assert stored == [["row_advantages"]]
    tq.kv_clear(keys=batch.keys, partition_id="few")
