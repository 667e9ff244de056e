"""What the check accepts never overflows TransferQueue's own storage; what it refuses could."""

import math
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transfer_queue.controller import PartitionIndexManager
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
from transfer_queue.storage.simple_storage import StorageUnitData

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checks.queue_capacity import (
    DEFAULT_SIZE,
    SIZE,
    UNITS,
    check_capacity,
    count_peak,
    derive_capacity,
)
from verl_pipeline.verl_adapter.entry.start_settings import derive_start_settings


class Queue:
    """TransferQueue's own numbering, routing and storage, in one process."""

    def __init__(self, config):
        size, units = OmegaConf.select(config, SIZE), OmegaConf.select(config, UNITS)
        self.numbers = PartitionIndexManager()
        self.units = {unit: StorageUnitData(math.ceil(size / units)) for unit in range(units)}

    def add_prompts(self, count):
        return self.numbers.allocate_indexes("train", count) if count else []

    def add_rows(self, count):
        added = []
        for _ in range(count):
            added += self.numbers.allocate_indexes("train", 1)
            manager = SimpleNamespace(storage_unit_infos=self.units)
            ((unit, group),) = AsyncSimpleStorageManager._group_by_hash(manager, added[-1:]).items()
            self.units[unit].put_data({"x": group.global_indexes}, group.global_indexes)
        return added

    def remove(self, numbers):
        if numbers:
            self.numbers.release_indexes("train", numbers)
        for unit in self.units.values():
            unit.clear(numbers)


@st.composite
def configs(draw):
    mini_batch = draw(st.integers(1, 3))
    return OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": {
                    "n": draw(st.integers(1, 4)),
                    "val_kwargs": {"n": draw(st.integers(1, 3))},
                },
                "actor": {"ppo_mini_batch_size": mini_batch},
            },
            "critic": {"enable": False},
            "data": {
                "train_batch_size": mini_batch * draw(st.integers(1, 3)),
                "val_batch_size": draw(st.none() | st.integers(1, 4)),
            },
            "trainer": {
                "nnodes": 1,
                "n_gpus_per_node": draw(st.integers(1, 4)),
                "test_freq": draw(st.sampled_from([-1, 1])),
                "v1": {
                    "trainer_mode": "one_off_pipeline",
                    "one_off_pipeline": {"staleness": draw(st.integers(0, 1))},
                },
            },
            "transfer_queue": {
                "backend": {
                    "storage_backend": "SimpleStorage",
                    "SimpleStorage": {
                        "total_storage_size": draw(st.integers(1, 60)),
                        "num_data_storage_units": draw(st.integers(1, 4)),
                    },
                }
            },
        }
    )


def run_schedule(queue, config, validation_prompts, draw):
    """Three steps as our trainer goes through them; what is removed leaves in any order."""
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    prompts, n = config.data.train_batch_size, rollout.n
    staleness = trainer.v1.one_off_pipeline.staleness
    mini_batch = config.actor_rollout_ref.actor.ppo_mini_batch_size * n
    multiple = math.lcm(trainer.n_gpus_per_node, mini_batch)
    submitted, sampled = {}, {}

    def remove(numbers):
        order = draw(st.permutations(numbers))
        if draw(st.booleans()):
            # Free numbers are taken in the order in which they were given back.
            order = sorted(order, key=lambda number: number % len(queue.units) == 0)
        queue.remove(order)

    def sample(batch):
        if batch in submitted and batch not in sampled:
            failed = draw(st.integers(0, 1))
            sampled[batch] = queue.add_rows(prompts * n - failed)

    for batch in range(1, 1 + staleness):
        submitted[batch] = queue.add_prompts(prompts)
    for step in (1, 2, 3):
        sample(step)
        submitted[step + staleness] = queue.add_prompts(prompts)
        sample(step)
        is_fast = draw(st.booleans())
        if is_fast:
            sample(step + staleness)
        remove(submitted.pop(step))
        dropped = draw(st.integers(0, 2))
        remove(sampled[step][:dropped])
        rows = sampled.pop(step)[dropped:]
        rows += queue.add_rows(-len(rows) % multiple)
        sample(step + staleness)
        if trainer.test_freq > 0:
            left = validation_prompts
            while left:
                validated = min(config.data.val_batch_size or left, left)
                left -= validated
                numbers = queue.add_prompts(validated)
                judged = queue.add_rows(validated * rollout.val_kwargs.n)
                remove(numbers)
                remove(judged)
        remove(rows)


def is_accepted(config, validation_prompts):
    try:
        check_capacity(config, validation_prompts)
    except ConfigError:
        return False
    return True


@settings(deadline=None, max_examples=60)
@given(configs(), st.integers(0, 6), st.data())
def test_the_size_that_a_refusal_names_never_overflows(config, validation_prompts, data):
    OmegaConf.update(config, SIZE, 0)
    with pytest.raises(ConfigError) as refused:
        check_capacity(config, validation_prompts)
    (size,) = re.findall(r"or to (\d+) or more", str(refused.value))
    OmegaConf.update(config, SIZE, int(size))
    check_capacity(config, validation_prompts)
    run_schedule(Queue(config), config, validation_prompts, data.draw)


@settings(deadline=None, max_examples=60)
@given(configs(), st.integers(0, 6))
def test_what_is_refused_overflows_after_some_order_of_removals(config, validation_prompts):
    if is_accepted(config, validation_prompts):
        return
    queue, peak = Queue(config), count_peak(config, validation_prompts)
    first = queue.add_prompts(peak.keys)
    # Free numbers are taken in the order in which they were given back: those of unit 0 last.
    units = OmegaConf.select(config, UNITS)
    queue.remove(sorted(first, key=lambda number: number % units == 0))
    queue.add_prompts(peak.keys - peak.rows)
    with pytest.raises(ValueError, match="Storage capacity exceeded"):
        queue.add_rows(peak.rows)


LARGE = ["data.train_batch_size=2048", "actor_rollout_ref.rollout.n=32"]


def test_two_batches_of_2048_x_32_do_not_fit_verls_default(composed):
    config = composed(*LARGE, f"{UNITS}=8")
    with pytest.raises(ConfigError) as refused:
        check_capacity(config, validation_prompts=0)
    assert str(refused.value) == (
        f"{SIZE}=100000: TransferQueue holds up to 131072 trajectories at once "
        "(data.train_batch_size=2048, actor_rollout_ref.rollout.n=32, staleness 1, validation), "
        f"up to 16896 of them on one of {UNITS}=8; set it to null, which allocates nothing, or to "
        "135161 or more"
    )
    (derived,) = derive_capacity(config)
    assert f"{SIZE}=None" in str(derived)
    derive_start_settings(config)
    check_capacity(config, validation_prompts=10**9)
    assert derive_capacity(config) == []


def test_a_bound_of_the_users_is_refused_before_anything_starts(composed):
    with pytest.raises(ConfigError, match=f"{SIZE}=120000: TransferQueue holds up to 131072 traj"):
        derive_start_settings(composed(*LARGE, f"{SIZE}=120000"))
    assert derive_capacity(composed(*LARGE, f"{SIZE}=140000")) == []


def test_the_validation_counts_once_its_size_is_known(composed):
    config = composed("trainer.test_freq=1", f"{SIZE}=300")
    check_capacity(config, validation_prompts=0)
    with pytest.raises(ConfigError, match="holds up to"):
        check_capacity(config, validation_prompts=1000)


def test_another_backend_has_no_units(composed):
    check_capacity(composed(*LARGE, "transfer_queue.backend.storage_backend=MooncakeStore"), 10**6)


def test_the_default_is_verls():
    from verl_pipeline.verl_adapter.checks.value_checks import _load_defaults

    assert _load_defaults()[SIZE] == DEFAULT_SIZE
