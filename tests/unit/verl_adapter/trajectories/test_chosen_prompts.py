"""Chosen prompts in the place of verl's data loader, over verl's own data set."""

import copy
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.helpers.curriculum_world import make_curriculum
from verl_pipeline.curriculum.settings import CurriculumSettings
from verl_pipeline.filters import BatchView
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.batch import TrajectoryBatch
from verl_pipeline.trainer.pipeline_config import ConfigError, OneOffPipelineConfig
from verl_pipeline.trainer.trajectory_keys import make_prompt_key, parse_position
from verl_pipeline.verl_adapter.trajectories.chosen_prompts import (
    ChosenPrompts,
    choose_prompts,
    find_foreign_state,
)
from verl_pipeline.verl_adapter.trajectories.prompt_table import make_order, read_prompt_table

ROWS, BATCH, MEMBERS = 11, 3, 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chosen")
    tiny_run.write_model(folder / "model")
    tiny_run.write_data(folder / "train.parquet", ROWS)
    tiny_run.write_data(folder / "other.parquet", ROWS + 1)
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    for row in rows:
        index = row["extra_info"]["index"]
        row["extra_info"] |= {
            "pass_rate": index / 10 if index % 2 else None,
            "difficulty": "hard" if index > 5 else "easy",
            "source": "made up" if index == 3 else None,
        }
    pq.write_table(pa.Table.from_pylist(rows), folder / "labelled.parquet")
    return folder


@pytest.fixture(scope="module")
def load(files):
    """Makes verl's configuration and training set of a file, once."""
    from transformers import AutoTokenizer
    from verl.trainer.ppo.utils import create_rl_dataset

    tokenizer, made = AutoTokenizer.from_pretrained(files / "model"), {}

    def make(name="train", **given):
        key = f"{name} {given}"
        if key not in made:
            data = OmegaConf.create(
                {
                    "train_files": str(files / f"{name}.parquet"),
                    "val_files": str(files / "other.parquet"),
                    "max_prompt_length": 64,
                    "shuffle": True,
                    "seed": 7,
                    "train_batch_size": BATCH,
                    **given,
                }
            )
            dataset = create_rl_dataset(data.train_files, data, tokenizer, None)
            made[key] = (OmegaConf.create({"data": data}), dataset)
        return made[key]

    return make


def make_settings(selector="learnability", **given):
    curriculum = CurriculumSettings(selector=selector, **given)
    return OneOffPipelineConfig(curriculum=curriculum)


def make_batch(k, rewards, verdict=None):
    """A trained batch in which the prompt at position p earned ``rewards[p]``, each member."""
    keys = [f"{make_prompt_key(k, p)}_{s}_0" for p in range(BATCH) for s in range(MEMBERS)]
    n = len(keys)
    view = BatchView(
        uids=[make_prompt_key(k, p) for p in range(BATCH) for _session in range(MEMBERS)],
        sessions=np.arange(n) % MEMBERS,
        rewards=np.repeat(rewards, MEMBERS).astype(float),
        verdicts=[verdict] * n,
        response_lengths=np.full(n, 5),
        limits=np.full(n, 9),
        truncated=np.zeros(n, dtype=bool),
    )
    return TrajectoryBatch(keys, np.full((n, 2), k - 1), view, [{}] * n, 0.0)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_uniform_gives_the_batches_of_verls_loader(load, shuffle, workers):
    """Over three epochs, the rest of each left out; values and order of the fields, too."""
    from verl.trainer.ppo.utils import create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    config, dataset = load(shuffle=shuffle, dataloader_num_workers=workers)
    loader = StatefulDataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        drop_last=True,
        collate_fn=collate_fn,
        sampler=create_rl_sampler(config.data, dataset),
    )
    chosen = choose_prompts(dataset, config, make_settings("uniform"))
    epochs = itertools.chain.from_iterable(iter(loader) for _epoch in range(3))
    for wanted in epochs:
        got = next(chosen)
        assert list(got) == list(wanted)
        for name, values in wanted.items():
            if isinstance(values, torch.Tensor):
                assert torch.equal(got[name], values)
            else:
                assert got[name].tolist() == values.tolist()


def test_the_table_holds_labels_rates_texts_and_tells_data_sets_apart(load):
    config, dataset = load("labelled")
    table, fingerprint = read_prompt_table(dataset, config.data)
    assert len(table) == ROWS
    assert table.sources == ["tiny"] * 3 + ["made up"] + ["tiny"] * 7
    assert table.difficulties == ["easy"] * 6 + ["hard"] * 5
    assert np.isnan(table.pass_rates[::2]).all()
    assert table.pass_rates[1::2].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert table.read_texts()[4] == tiny_run.make_prompt(4)
    assert sorted(table.order(2).tolist()) == list(range(ROWS))
    # What a selector learnt holds for the same prompts, whatever else their rows say.
    assert read_prompt_table(load("train")[1], config.data)[1] == fingerprint
    assert read_prompt_table(load("other")[1], config.data)[1] != fingerprint


def test_the_order_of_an_epoch_does_not_depend_on_which_was_asked_before():
    settings = OmegaConf.create({"shuffle": True, "seed": 5})
    one, other = make_order(settings, 20), make_order(settings, 20)
    forward = [one(epoch).tolist() for epoch in range(4)]
    assert [other(epoch).tolist() for epoch in reversed(range(4))] == forward[::-1]
    assert forward[0] != forward[1]


def test_a_data_set_with_an_order_of_its_own_is_refused(load):
    stream = {
        "path": "pkg://verl_pipeline.verl_adapter.trajectories.prompt_stream",
        "name": "PromptStream",
    }
    config, dataset = load(shuffle=False, custom_cls=stream)
    assert choose_prompts(dataset, config, make_settings(None)) is None
    for refused in (dataset, [1, 2, 3]):
        with pytest.raises(ConfigError, match="curriculum.selector: .* has an order of its own"):
            choose_prompts(refused, config, make_settings())


def train(chosen, batches):
    """Take and train batches in the order of staleness 1; returns their data indices."""
    taken = {}
    for k in batches:
        for batch in range(max(taken, default=k - 1) + 1, k + 2):
            chosen.note(batch)
            taken[batch] = [extra["index"] for extra in next(chosen)["extra_info"]]
        chosen.observe(k, make_batch(k, [(index % 4) / 4 for index in taken.get(k, [0] * BATCH)]))
    return taken


@pytest.mark.parametrize("selector", ["uniform", "learnability", "similar"])
def test_what_a_checkpoint_does_not_hold_is_taken_again(load, selector):
    """The checkpoint of step 5 holds no trajectory of batch 6, which was taken."""
    config, dataset = load()
    make = lambda: choose_prompts(dataset, config, make_settings(selector))  # noqa: E731
    whole = train(make(), range(1, 12))
    first = make()
    taken = train(first, range(1, 6))
    with first.stand_before(6):
        state = copy.deepcopy(first.state_dict())
    assert first.state_dict()["next"] == 7
    second = make()
    second.load_state_dict(state)
    resumed = train(second, range(6, 12))
    assert resumed == {batch: rows for batch, rows in whole.items() if batch >= 6}
    assert resumed[6] == taken[6]


def test_a_held_batch_is_not_taken_again(load):
    """With the pool drained, the checkpoint of step 5 holds batch 6: 7 comes next."""
    config, dataset = load()
    first = choose_prompts(dataset, config, make_settings())
    train(first, range(1, 6))
    second = choose_prompts(dataset, config, make_settings())
    second.load_state_dict(first.state_dict())
    second.note(7)
    with pytest.raises(ConfigError, match="batch 8 comes next, but the checkpoint has no data.pt"):
        second.note(8)


def test_a_checkpoint_of_other_batches_is_refused(load):
    config, dataset = load()
    chosen = choose_prompts(dataset, config, make_settings())
    other = choose_prompts(*reversed(load("other")), make_settings())
    with pytest.raises(
        ConfigError, match="checkpoint was written with another training set .of 12"
    ):
        chosen.load_state_dict(other.state_dict())
    for state in ({"_snapshot": {}}, None):
        with pytest.raises(ConfigError, match="was written with no selector .null., not with the"):
            chosen.load_state_dict(state)
    mine = chosen.state_dict()
    assert find_foreign_state(mine, "learnability") is None
    assert find_foreign_state({"_snapshot": {}}, None) is None
    assert "with the selector learnability, not with no selector" in find_foreign_state(mine, None)


def test_a_reward_that_is_no_pass_rate_names_the_setting(load):
    config, dataset = load()
    chosen = choose_prompts(dataset, config, make_settings())
    next(chosen)
    with pytest.raises(
        ConfigError, match="curriculum.solved_at=null: .*a reward of -1, "
    ) as caught:
        chosen.observe(1, make_batch(1, [1.0, -1.0, 0.0]))
    assert "\n" not in str(caught.value)


def test_what_no_grader_judged_is_no_outcome():
    curriculum = make_curriculum("uniform", make_world(), batch_size=BATCH)
    chosen = ChosenPrompts(list(range(9)), curriculum, CurriculumSettings("uniform"), list)
    assert next(chosen) == curriculum.propose(1).tolist()
    metrics = chosen.observe(1, make_batch(1, [0.5, 0.5, 0.5], verdict="infrastructure"))
    assert "curriculum/pass_rate" not in metrics and "curriculum/signal_share" not in metrics


def make_world():
    from tests.helpers.curriculum_world import make_prompts

    return make_prompts(9)


def test_the_position_of_a_key_is_that_of_its_prompt():
    assert [parse_position(key) for key in ("b3p0", "b12p34", "b12p34_5_0")] == [0, 34, 34]
