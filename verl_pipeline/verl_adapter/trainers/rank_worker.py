"""verl's worker of a trainer rank, which does the driver's work on every token of its own rows.

:mod:`verl_pipeline.verl_adapter.jagged.rank_fields` says what that is. verl hands a worker the
fields of its rows and stores the fields that it returns, so nothing is read that verl's worker does
not read, and less is written.

Invariants:
* Without a plan or advantages of ours in the batch, all methods of training are verl's.
* Each file of a checkpoint is saved to the disk and read by one rank: the one that wrote it, where
  its name tells.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from tensordict import TensorDict
from verl.single_controller.base.decorator import (
    Dispatch,
    make_nd_compute_dataproto_dispatch_fn,
    register,
)
from verl.trainer.ppo.utils import Role
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    Part,
    find_damage,
    list_files,
    seal_parts,
    select_share,
)
from verl_pipeline.verl_adapter.jagged.rank_fields import (
    NORM_FACTOR,
    PLAN,
    READ,
    RowPlan,
    make_fields,
    prepare_update,
)

# Roles that verl gives its actor's worker class.
ROLES = (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef, Role.RefPolicy)


class PartKeeper:
    """A rank's share of the files of a checkpoint."""

    rank: int
    world_size: int

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def seal_parts(self, folder: str, model: str) -> list[Part]:
        """Save this rank's files of ``folder/model`` to the disk, and describe them."""
        paths = [f"{model}/{path}" for path in list_files(Path(folder) / model)]
        return seal_parts(Path(folder), select_share(paths, self.rank, self.world_size))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def find_damaged_part(self, folder: str, parts: Sequence[Part]) -> str | None:
        """Name a file of this rank that is not as its part says; None if there is none."""
        own = set(select_share([part.path for part in parts], self.rank, self.world_size))
        return find_damage(Path(folder), [part for part in parts if part.path in own])


class CriticWorker(PartKeeper, TrainingWorker):
    """verl's worker of a critic's rank."""


class RankWorker(PartKeeper, ActorRolloutRefWorker):
    """verl's worker; dispatch and collection of each method are those of verl's method."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's output, with the fields of the batch's plan."""
        plan, given = tu.pop(data, PLAN), data.select(*READ, strict=False)
        return replace_log_probs(given, super().compute_ref_log_prob(data), plan)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's output, with the fields of the batch's plan."""
        plan, given = tu.pop(data, PLAN), data.select(*READ, strict=False)
        return replace_log_probs(given, super().compute_log_prob(data), plan)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """verl's update, on the advantages and normalized weights of the rows."""
        prepare_update(data, tu.pop(data, NORM_FACTOR))
        return super().update_actor(data)


def replace_log_probs(
    data: TensorDict, output: TensorDict | None, plan: RowPlan | None
) -> TensorDict | None:
    """``output`` with the fields of ``plan`` in place of ``log_probs`` and ``entropy``; as it is
    without a plan, or None on a rank that has no output (all but the last pipeline stage).

    Args:
        data: :data:`.jagged.rank_fields.READ` as the batch had it, since engines may move fields to
            their device.
    """
    if output is None or plan is None:
        return output
    fields = make_fields(data, output, plan)
    replaced = output.exclude("log_probs", "entropy")
    for name, values in fields.items():
        replaced[name] = values
    return replaced


def use_rank_workers(role_worker_mapping: dict[Role, Any]) -> None:
    """Put our class in the place of verl's, before verl starts the trainer's processes."""
    for role in ROLES:
        if role in role_worker_mapping:
            role_worker_mapping[role] = ray.remote(RankWorker)
    if Role.Critic in role_worker_mapping:
        role_worker_mapping[Role.Critic] = ray.remote(CriticWorker)
