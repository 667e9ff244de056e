"""The ranks' worker: which of verl's it replaces, and how verl calls it."""

from types import SimpleNamespace

import pytest
import ray
import torch
from tensordict import NonTensorData, TensorDict
from verl.single_controller.base.decorator import MAGIC_ATTR
from verl.single_controller.base.worker_group import WorkerGroup
from verl.trainer.ppo.utils import Role
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from verl_pipeline.verl_adapter.jagged.rank_fields import STATISTICS, RowPlan
from verl_pipeline.verl_adapter.jagged.rows import make_nested
from verl_pipeline.verl_adapter.trainers.rank_worker import (
    CriticWorker,
    PartKeeper,
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
    for role in (Role.Actor, Role.RefPolicy):
        assert isinstance(mapping[role], ray.actor.ActorClass)
        assert mapping[role].__ray_metadata__.modified_class.__name__ == "RankWorker"
    critic = mapping[Role.Critic].__ray_metadata__.modified_class
    assert critic.__name__ == "CriticWorker" and issubclass(critic, TrainingWorker)


class Group(WorkerGroup):
    """Workers in this process, behind verl's own calls."""

    def __init__(self, worker_class, workers):
        self.workers = workers
        self._bind_worker_method(worker_class, self._make_call)

    @property
    def world_size(self):
        return len(self.workers)

    def execute_all(self, *_args):
        raise NotImplementedError

    execute_rank_zero = execute_all

    def _make_call(self, _group, method_name, dispatch_fn, collect_fn, execute_fn, blocking):
        def call(*args, **kwargs):
            args, kwargs = dispatch_fn(self, *args, **kwargs)
            return collect_fn(
                self,
                [
                    getattr(PartKeeper, method_name)(worker, *(arg[i] for arg in args))
                    for i, worker in enumerate(self.workers)
                ],
            )

        return call


@pytest.mark.parametrize("worker_class", [RankWorker, CriticWorker])
def test_each_rank_describes_and_checks_the_files_that_it_wrote(tmp_path, worker_class):
    names = ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt", "fsdp_config.json"]
    names += ["model/__1_0.distcp", "huggingface/model.safetensors", "optim_rank_7.pt"]
    for name in names:
        path = tmp_path / "actor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    workers = [SimpleNamespace(rank=rank, world_size=2) for rank in range(2)]
    group = Group(worker_class, workers)
    sealed = group.seal_parts(str(tmp_path), "actor")
    assert {part.path for part in sealed[1]} == {f"actor/{name}" for name in (names[1], names[3])}
    parts = [part for share in sealed for part in share]
    assert sorted(part.path for part in parts) == sorted(f"actor/{name}" for name in names)
    assert group.find_damaged_part(str(tmp_path), parts) == [None, None]
    (tmp_path / "actor" / names[3]).write_text(names[3].upper())
    first, second = group.find_damaged_part(str(tmp_path), parts)
    assert first is None and f"actor/{names[3]} is damaged" in second


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
