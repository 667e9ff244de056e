"""The stream of prompts against a plain model, through verl's factories and torchdata's loader."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.trajectories.prompt_stream import make_permutation

ROWS = 11


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    tiny_run.write_model(folder / "model")
    tiny_run.write_data(folder / "train.parquet", ROWS)
    tiny_run.write_data(folder / "heldout.parquet", 4)
    return folder


@pytest.fixture(scope="module")
def tokenizer(files):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(files / "model")


@pytest.fixture(scope="module")
def data_set(files, tokenizer):
    """verl's training set with these settings, made once for each: it reads and tokenises files."""
    from verl.trainer.ppo.utils import create_rl_dataset

    made = {}

    def make(**given):
        key = tuple(sorted(given.items()))
        if key not in made:
            config = config_of(files, **given)
            made[key] = (config, create_rl_dataset(config.train_files, config, tokenizer, None))
        return made[key]

    return make


def config_of(files, **given):
    return OmegaConf.create(
        {
            "train_files": str(files / "train.parquet"),
            "val_files": str(files / "heldout.parquet"),
            "max_prompt_length": 64,
            "shuffle": False,
            "seed": 3,
            "train_batch_size": 4,
            "custom_cls": {
                "path": "pkg://verl_pipeline.verl_adapter.trajectories.prompt_stream",
                "name": "PromptStream",
            },
            **given,
        }
    )


def loader_of(config, data_set, batch, workers=0):
    """As verl's trainer makes it."""
    from verl.trainer.ppo.utils import create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    return StatefulDataLoader(
        dataset=data_set,
        batch_size=batch,
        num_workers=workers,
        drop_last=True,
        collate_fn=collate_fn,
        sampler=create_rl_sampler(config, data_set),
    )


def take(batches, count):
    return [row for _ in range(count) for row in next(batches)["index"]]


def model(seed, epochs):
    return [int(row) for epoch in range(epochs) for row in make_permutation(ROWS, seed, epoch)]


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2),
    parts=st.lists(
        st.tuples(st.integers(1, ROWS), st.integers(0, 4), st.integers(0, 4)),
        min_size=1,
        max_size=4,
    ),
)
def test_runs_that_follow_each_other_share_one_stream(data_set, seed, parts):
    """Each part is a run with its own batch size, saved after some batches and then resumed."""
    seen = []
    for batch, before, after in parts:
        config, rows = data_set(seed=seed, stream_start=len(seen))
        first = loader_of(config, rows, batch)
        seen += take(iter(first), before)
        resumed = loader_of(config, rows, batch)
        resumed.load_state_dict(first.state_dict())
        seen += take(iter(resumed), after)
    assert seen == model(seed, 2 + len(seen) // ROWS)[: len(seen)]


def test_every_epoch_is_a_permutation_of_its_own():
    orders = [tuple(make_permutation(ROWS, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == list(range(ROWS)) for order in orders)


def test_the_order_is_fixed_for_all_time():
    # A checkpoint's prompts must not depend on the version of numpy it is resumed with.
    assert make_permutation(8, 1, 0).tolist() == [6, 3, 7, 1, 4, 0, 2, 5]


def test_a_loader_with_workers_resumes_at_the_same_prompt(data_set):
    config, rows = data_set(seed=1, stream_start=5)
    first = loader_of(config, rows, 4, workers=2)
    batches = iter(first)
    assert take(batches, 2) == model(1, 3)[5:13]
    resumed = loader_of(config, rows, 4, workers=2)
    resumed.load_state_dict(first.state_dict())
    assert take(iter(resumed), 2) == model(1, 3)[13:21]


def test_validation_files_are_an_ordinary_data_set(files, tokenizer):
    from verl.trainer.ppo.utils import create_rl_dataset

    config = config_of(files)
    held_out = create_rl_dataset(config.val_files, config, tokenizer, None, is_train=False)
    assert [held_out[row]["index"] for row in range(len(held_out))] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shuffle": True}, r"data\.shuffle=True"),
        ({"seed": None}, r"data\.seed=None"),
        ({"stream_start": -1}, r"data\.stream_start=-1"),
        (
            {"train_batch_size": ROWS + 1},
            rf"data\.train_batch_size={ROWS + 1}: the training set has {ROWS} prompts",
        ),
    ],
)
def test_what_contradicts_the_stream_is_refused(data_set, given, message):
    with pytest.raises(ConfigError, match=message):
        data_set(**given)


def test_training_on_the_validation_file_is_refused(files, data_set):
    with pytest.raises(ConfigError, match=r"data\.val_files=.*must not be data\.train_files"):
        data_set(val_files=str(files / "train.parquet"))
