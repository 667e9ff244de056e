"""The ranks' worker: which of verl's it replaces, and how verl calls it."""

import pytest
import ray
import torch
from tensordict import NonTensorData, TensorDict
from verl.single_controller.base.decorator import MAGIC_ATTR
from verl.trainer.ppo.utils import Role
from verl.workers.engine_workers import ActorRolloutRefWorker

from verl_pipeline.verl_adapter.jagged.rank_fields import STATISTICS, RowPlan
from verl_pipeline.verl_adapter.jagged.rows import make_nested
from verl_pipeline.verl_adapter.trainers.rank_worker import (
    RankWorker,
    replace_log_probs,
    use_rank_workers,
)


@pytest.mark.parametrize("name", ["compute_log_prob", "compute_ref_log_prob", "update_actor"])
def test_verl_dispatches_and_collects_as_for_its_own_worker(name):
    ours, verls = (
        dict(getattr(getattr(worker, name), MAGIC_ATTR))
        for worker in (RankWorker, ActorRolloutRefWorker)
    )
    for part in ("dispatch_fn", "collect_fn"):
        mine, theirs = (attributes["dispatch_mode"][part] for attributes in (ours, verls))
        assert (mine.func, mine.args, mine.keywords) == (
            theirs.func,
            theirs.args,
            theirs.keywords,
        )
    assert {**ours, "dispatch_mode": None} == {**verls, "dispatch_mode": None}


def test_actors_of_every_mode_and_the_critic_are_ours():
    mapping = {Role.Actor: "verl's", Role.RefPolicy: "verl's", Role.Critic: "verl's"}
    use_rank_workers(mapping)
    assert mapping.keys() == {Role.Actor, Role.RefPolicy, Role.Critic}
    for role, actors in mapping.items():
        assert isinstance(actors, ray.actor.ActorClass)
        expected = "CriticWorker" if role == Role.Critic else "RankWorker"
        assert actors.__ray_metadata__.modified_class.__name__ == expected


def test_what_verl_reports_beside_the_log_probs_is_kept():
    lengths, prompts = torch.tensor([3, 2]), torch.tensor([1, 4])
    values = -torch.rand(int((lengths + prompts).sum()))
    data = TensorDict({"response_mask": make_nested(torch.ones(5).long(), lengths)}, 2)
    output = TensorDict(
        {
            "log_probs": make_nested(values, lengths + prompts),
            "entropy": make_nested(-values, lengths + prompts),
            "metrics": NonTensorData({"mfu": [0.5]}),
        },
        2,
    )
    plan = RowPlan("old_log_probs", measured=True)
    replaced = replace_log_probs(data, output, plan)
    assert set(replaced.keys()) == {"old_log_probs", STATISTICS, "metrics"}
    assert replaced["metrics"] == {"mfu": [0.5]}
    assert replace_log_probs(data, output, None) is output
    assert replace_log_probs(data, None, plan) is None
