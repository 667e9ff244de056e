"""Held batches through a real TransferQueue: what comes back, what is left out, what survives."""

import os
import resource
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import ray
import torch
import transfer_queue as tq
import verl.trainer.ppo.v1  # noqa: F401  (registers our trainers; they import each other)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.utils import tensordict_utils as tu
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.trainer.schedule import Dial
from verl_pipeline.trainer.step_metrics import StepClock
from verl_pipeline.trainer.trajectory_keys import make_prompt_key
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import HELD_BATCHES
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import MANIFEST
from verl_pipeline.verl_adapter.checkpointing.loader_positions import LoaderPositions
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints
from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer
from verl_pipeline.verl_adapter.trainers.rank_worker import PartKeeper
from verl_pipeline.verl_adapter.trajectories import held_batches
from verl_pipeline.verl_adapter.trajectories.held_batches import (
    HeldBatchesError,
    load_held_batches,
    load_snapshot,
    read_parts,
    save_held_batches,
)
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer
from verl_pipeline.verl_adapter.trajectories.trajectory_store import list_tags, put_prompts

pytestmark = pytest.mark.timeout(300)


def start_queue(units, size):
    storage = {"num_data_storage_units": units, "total_storage_size": size}
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": storage}}))


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    start_queue(units=3, size=900)
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture(autouse=True)
def empty_queue():
    yield
    clear()


def clear():
    keys = list(list_tags("train"))
    if keys:
        tq.kv_clear(keys=keys, partition_id="train")


def make_row(prompt, response, **more):
    """A trajectory as verl's agent loop puts it, with token ids ``prompt`` and ``response``."""
    prompts, responses = (torch.tensor(ids, dtype=torch.int64) for ids in (prompt, response))
    ones = torch.ones_like(responses)
    return {
        "prompts": prompts,
        "responses": responses,
        "response_mask": ones,
        "loss_mask": ones,
        "input_ids": torch.cat([prompts, responses]),
        "position_ids": torch.arange(len(prompts) + len(responses)),
        "rollout_log_probs": -torch.rand(len(responses)),
        "rm_scores": torch.zeros(len(responses)),
        "multi_modal_inputs": {},
        "extra_fields": {"reward_extra_info": {"acc": np.float64(1.0)}, "generated_at": 1.5},
        "raw_prompt": [{"role": "user", "content": "Why?"}],
        "num_turns": 2,
        **more,
    }


def put_batch(batch, rows, versions=(0, 0)):
    """One prompt for each trajectory; returns the trajectories' keys."""
    prompts = [make_prompt_key(batch, position) for position in range(len(rows))]
    tags = [{"is_prompt": True, "status": "finished", "sessions": 1} for _ in rows]
    tq.kv_batch_put(keys=prompts, partition_id="train", tags=tags)
    keys = [f"{prompt}_0_0" for prompt in prompts]
    for key, row in zip(keys, rows, strict=True):
        tag = {
            "prompt_len": len(row["prompts"]),
            "response_len": len(row["responses"]),
            "min_global_steps": versions[0],
            "max_global_steps": versions[1],
        }
        fields = tu.list_of_dict_to_tensordict([row])
        tq.kv_batch_put(keys=[key], partition_id="train", fields=fields, tags=[tag])
    return keys


def read_fields(keys):
    """All fields with dtypes, shapes and types, comparable."""
    data = tq.kv_batch_get(keys=keys, partition_id="train")
    found = {}
    for name in sorted(data.keys()):
        value = tu.get(data, name)
        if isinstance(value, torch.Tensor):
            found[name] = [(row.dtype, row.shape, row.tolist()) for row in value.unbind()]
        else:
            found[name] = repr(value)
    return found


TOKENS = st.lists(st.integers(0, 2**31), min_size=1, max_size=20)
ROWS = st.lists(
    st.builds(
        make_row,
        TOKENS,
        TOKENS,
        index=st.integers() | st.text(),
        score=st.floats(width=32).map(torch.tensor),
        routed=st.integers(1, 4).map(lambda n: torch.ones(n, 2, dtype=torch.int16)),
        extra=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
        pixels=st.just({"pixel_values": torch.rand(2, 3)}),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, part_tokens=st.sampled_from([1, 30, 1000]))
def test_what_is_loaded_is_what_was_saved(rows, part_tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(held_batches, "PART_TOKENS", part_tokens)
    clear()
    keys = put_batch(2, rows)
    before, tags = repr(read_fields(keys)), list_tags("train")
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    clear()
    assert load_held_batches(tmp_path / HELD_BATCHES) == 2 * len(rows)
    assert repr(read_fields(keys)) == before
    assert list_tags("train") == tags


def test_tensors_that_are_ragged_twice_have_no_batch_and_come_back(tmp_path):
    rows = [make_row([1], [2], grid=torch.ones(n, n + 1)) for n in (1, 2)]
    keys = put_batch(2, rows)
    before = [read_fields([key]) for key in keys]
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    clear()
    load_held_batches(tmp_path / HELD_BATCHES)
    assert [read_fields([key]) for key in keys] == before


def put_trained_batch(batch):
    """A trained batch as a checkpoint finds it: with what its update computed, and padding."""
    keys = put_batch(batch, [make_row([1], [2, 3], advantages=torch.rand(2)) for _ in range(3)])
    tq.kv_clear(keys=[make_prompt_key(batch, 0)], partition_id="train")
    tq.kv_put(key="padab12_0_0", partition_id="train", tag={"is_padding": True})
    return keys


def test_the_trained_batch_and_its_padding_are_left_out(tmp_path):
    put_trained_batch(4)
    held = put_batch(5, [make_row([1, 2], [3]), make_row([4], [5])], versions=(3, 3))
    assert save_held_batches(tmp_path / HELD_BATCHES, trained_step=4, lead=9) == 4
    parts = list(read_parts(tmp_path / HELD_BATCHES))
    assert [part["key"] for part in parts] == [["b5p0", "b5p1"], held]
    assert "advantages" not in parts[1]


def test_a_checkpoint_without_a_held_batch_says_so(tmp_path):
    put_trained_batch(4)
    assert save_held_batches(tmp_path / HELD_BATCHES, trained_step=4, lead=9) == 0
    clear()
    assert load_held_batches(tmp_path / HELD_BATCHES) == 0
    assert list_tags("train") == {}


def test_a_batch_takes_an_eighth_of_the_room_of_verls_copy(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        make_row(rng.integers(0, 150_000, 100), rng.integers(0, 150_000, 900)) for _ in range(24)
    ]
    put_batch(2, rows)
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    tq.save_checkpoint(tmp_path / "verls")
    copied = sum(path.stat().st_size for path in (tmp_path / "verls").rglob("*.pkl"))
    assert (tmp_path / HELD_BATCHES).stat().st_size < copied / 8


@ray.remote(num_cpus=0)
def save_and_die(path, trained_step):
    """Die as a kill -9 would have it, once the first part is in the file."""
    tq.init()
    encode, calls = held_batches.encode_columns, []

    def encode_or_die(*args):
        calls.append(args)
        if len(calls) > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(*args)

    held_batches.encode_columns = encode_or_die
    save_held_batches(path, trained_step, lead=9)


def test_a_kill_amid_the_writing_leaves_what_was_there(tmp_path):
    keys = put_batch(2, [make_row([1], [2])])
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    content = (tmp_path / HELD_BATCHES).read_bytes()
    tq.kv_clear(keys=keys, partition_id="train")
    put_batch(2, [make_row([7], [8, 9])])
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(save_and_die.options(max_retries=0).remote(tmp_path / HELD_BATCHES, 1))
    assert (tmp_path / HELD_BATCHES).read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2  # and what the kill has left
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    assert [path.name for path in tmp_path.iterdir()] == [HELD_BATCHES]
    clear()
    load_held_batches(tmp_path / HELD_BATCHES)
    assert read_fields(keys)["responses"] == [(torch.int64, (2,), [8, 9])]


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path):
    put_batch(2, [make_row([1], [2])])
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    content = (tmp_path / HELD_BATCHES).read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=f"{HELD_BATCHES}: cannot be written: File too large"):
            save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / HELD_BATCHES).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [HELD_BATCHES]


def test_half_a_file_and_another_format_are_refused(tmp_path):
    put_batch(2, [make_row([1], [2]), make_row([3], [4])])
    path = tmp_path / HELD_BATCHES
    save_held_batches(path, trained_step=1, lead=9)
    content = path.read_bytes()
    clear()
    for size in (0, 1, *range(4, len(content) - 8, len(content) // 20)):
        path.write_bytes(content[:size])
        with pytest.raises(HeldBatchesError, match=f"{HELD_BATCHES}: cannot be read .*resume from"):
            load_held_batches(path)
        clear()
    path.write_bytes(content.replace(b"held batches 1", b"held batches 9"))
    with pytest.raises(HeldBatchesError, match="its format is b'verl-pipeline held batches 9'"):
        load_held_batches(path)


def test_a_copy_of_verls_gives_the_held_batch_only(tmp_path):
    put_trained_batch(4)
    held = put_batch(5, [make_row([1], [2])])
    # Begun by verl's separate_async, which would be re-issued, never trained, and saved again.
    foreign = {"is_prompt": True, "status": "running"}
    tq.kv_batch_put(keys=["0af3", "1b2c"], partition_id="train", tags=[foreign, foreign])
    before = read_fields(held)
    tq.save_checkpoint(tmp_path / "transfer_queue")
    clear()
    assert load_snapshot(tmp_path / "transfer_queue", trained_step=4) == 2
    assert list(list_tags("train")) == ["b5p0", *held]
    assert read_fields(held) == before


def test_a_copy_of_verls_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(HeldBatchesError, match="transfer_queue: TransferQueue cannot restore it"):
        load_snapshot(tmp_path / "transfer_queue", trained_step=4)


class Engine:
    """Stands for the trainer's workers: writes and reads a word."""

    rank, world_size = 0, 1
    word = "model_world_size_1_rank_0.pt"

    def save_checkpoint(self, local_path, *_args, max_ckpt_to_keep):
        assert max_ckpt_to_keep is None
        Path(local_path).mkdir(parents=True)
        (Path(local_path) / self.word).write_text("weights")

    def load_checkpoint(self, local_path, del_local_after_load):
        assert (Path(local_path) / self.word).read_text() == "weights"

    def seal_parts(self, folder, model):
        return [PartKeeper.seal_parts(self, folder, model)]

    def find_damaged_part(self, folder, parts):
        return [PartKeeper.find_damaged_part(self, folder, parts)]


def make_trainer(folder, step):
    """Our trainer as far as verl's own saving and loading of checkpoints need it."""
    trainer = object.__new__(OneOffPipelineTrainer)
    limits = {"max_actor_ckpt_to_keep": 1, "max_critic_ckpt_to_keep": None}
    places = {"default_local_dir": str(folder), "default_hdfs_dir": None, "resume_from_path": None}
    resumed = {"resume_mode": "auto", "del_local_ckpt_after_load": False}
    trainer.config = OmegaConf.create(
        {
            "trainer": {"save_freq": 1, "n_gpus_per_node": 1, **limits, **places, **resumed},
            "algorithm": {"adv_estimator": "grpo"},
            "critic": {"enable": False},
            "data": {"train_batch_size": 2},
            "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}},
        }
    )
    trainer.trainer_mode, trainer.global_steps, trainer.use_critic = "one_off_pipeline", step, False
    trainer.actor_rollout_wg, trainer.train_dataloader = Engine(), mock.Mock()
    trainer.train_dataloader.state_dict.return_value = {"position": step + 1}
    trainer.checkpoint_callback, trainer.step_clock = mock.Mock(), StepClock()
    trainer.replay_buffer = InOrderReplayBuffer(1.0, watchdog=lambda: None, watch_every_s=1.0)
    trainer.settings, trainer._sampling_versions = mock.Mock(most_staleness=1, dial=Dial()), {}
    trainer._checkpoints = RunCheckpoints(trainer.config)
    trainer._positions = LoaderPositions(trainer.train_dataloader)
    return trainer


def test_a_trainer_resumes_with_the_batch_that_it_had_sampled_ahead(tmp_path):
    """verl's own methods, a real queue; only the engines and the data loader write nothing."""
    first = make_trainer(tmp_path, step=4)
    put_trained_batch(4)
    held = put_batch(5, [make_row([1, 2], [3]), make_row([4], [5])], versions=(3, 3))
    before = read_fields(held)
    first._save_checkpoint()
    step = tmp_path / "global_step_4"
    complete = ["actor", MANIFEST, "data.pt", HELD_BATCHES]
    assert sorted(path.name for path in step.iterdir()) == complete
    # The user's callback sees the checkpoint complete, at its place.
    first.checkpoint_callback.on_save.assert_called_once_with(
        trainer=first, global_step=4, checkpoint_dir=str(step), async_save=False
    )
    # verl reads it as its own.
    assert find_latest_ckpt_path(str(tmp_path)) == str(step)
    clear()
    second = make_trainer(tmp_path, step=0)
    second._load_checkpoint()
    assert (second.global_steps, second.trainer_mode) == (4, "one_off_pipeline")
    second.train_dataloader.load_state_dict.assert_called_with({"position": 5})
    assert list(list_tags("train")) == ["b5p0", "b5p1", *held]
    assert read_fields(held) == before
    assert second._adopt_held_batches(trained_version=4) == {5}
    assert second._sampling_versions == {5: 3}
    # The next checkpoint replaces this one and what it held.
    second.global_steps = 5
    second._save_checkpoint()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "global_step_5",
        "latest_checkpointed_iteration.txt",
    ]


def test_a_trainer_passes_over_a_checkpoint_whose_weights_are_damaged(tmp_path, capsys):
    first = make_trainer(tmp_path, step=4)
    first.config.trainer.max_actor_ckpt_to_keep = None
    first._save_checkpoint()
    first.global_steps = 5
    first._save_checkpoint()
    (tmp_path / "global_step_5" / "actor" / Engine.word).write_text("Weights")
    second = make_trainer(tmp_path, step=0)
    second._load_checkpoint()
    assert second.global_steps == 4
    assert f"global_step_5: actor/{Engine.word} is damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_a_queue_of_another_size_takes_what_was_saved(tmp_path):
    keys = put_batch(2, [make_row([1, 2, 3], [4]), make_row([5], [6, 7])])
    before, tags = read_fields(keys), list_tags("train")
    save_held_batches(tmp_path / HELD_BATCHES, trained_step=1, lead=9)
    tq.close()
    start_queue(units=2, size=10)
    load_held_batches(tmp_path / HELD_BATCHES)
    assert read_fields(keys) == before
    assert list_tags("train") == tags


def test_past_the_barrier_a_checkpoint_holds_what_is_complete_and_the_loader_stands_behind_it(
    tmp_path,
):
    """Batch 6 is being sampled, so batch 7, which is complete, is sampled again, too."""
    first = make_trainer(tmp_path, step=4)
    first.settings = mock.Mock(most_staleness=3, dial=Dial("in_flight", 3))
    state = first.train_dataloader.state_dict
    for batch in (5, 6, 7):
        state.return_value = {"before": batch}
        first._positions.note(batch)
    state.return_value = {"before": 8}
    held = put_batch(5, [make_row([1, 2], [3]), make_row([4], [5])], versions=(2, 3))
    put_prompts(["b6p0", "b6p1"], 6, [1, 1])
    put_batch(7, [make_row([1, 2], [3]), make_row([4], [5])], versions=(4, 4))
    first._save_checkpoint()
    assert first.train_dataloader.state_dict() == {"before": 8}
    clear()
    second = make_trainer(tmp_path, step=0)
    second._load_checkpoint()
    second.train_dataloader.load_state_dict.assert_called_with({"before": 6})
    assert list(list_tags("train")) == ["b5p0", "b5p1", *held]
