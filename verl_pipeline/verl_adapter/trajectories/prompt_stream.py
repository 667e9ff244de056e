"""The training prompts as one endless stream, so that consecutive runs share it without a gap.

    data.custom_cls.path=pkg://verl_pipeline.verl_adapter.trajectories.prompt_stream
    data.custom_cls.name=PromptStream data.shuffle=False data.seed=1 +data.stream_start=0

Row i of the data set is prompt ``stream_start + i`` of the stream, which is the permutations of
epochs 0, 1, 2, ... one after the other. A run with another batch size that starts where the
previous run stopped gets the next prompts: none is lost at an epoch's end, and none comes twice
within an epoch.

Invariants:
* A prompt of the stream follows from (number of rows, seed, position) alone; there is no state.
  verl's sequential sampler counts the rows it has given and torchdata's loader restores that count,
  so a resumed run continues at the right prompt.
* Validation files are an ordinary data set.

This is a data set and not a sampler because verl 0.9.1 lets users choose only the former.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_pipeline.trainer.pipeline_config import ConfigError


def make_permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the rows in an epoch: int64, shape (rows,).

    RandomState's stream of numbers is frozen (NEP 19), unlike Generator's.
    """
    return np.random.RandomState([seed, epoch]).permutation(rows)


class PromptStream(RLHFDataset):
    """verl's data set in the stream's order.

    Raises:
        ConfigError: a setting that contradicts the stream, or fewer rows than one batch.
    """

    def __init__(self, data_files: Any, *args: Any, **kwargs: Any):
        config = kwargs["config"]
        # verl builds the training and the validation set alike and does not say which is which.
        self.is_endless = data_files == config.train_files
        super().__init__(data_files, *args, **kwargs)
        if not self.is_endless:
            return
        self._start = int(config.get("stream_start", 0))
        rows, batch, seed = super().__len__(), config.train_batch_size, config.get("seed")
        refusals = [
            (
                config.train_files == config.val_files,
                "data.val_files",
                "must not be data.train_files",
            ),
            (
                bool(config.shuffle),
                "data.shuffle",
                "the stream has its own order; set it False",
            ),
            (
                not isinstance(seed, int) or seed < 0,
                "data.seed",
                "the stream's order needs an integer of at least 0",
            ),
            (self._start < 0, "data.stream_start", "must not be negative"),
            (
                rows < batch,
                "data.train_batch_size",
                f"the training set has {rows} prompts; use a smaller batch",
            ),
        ]
        for refused, name, reason in refusals:
            if refused:
                value = config.get(name.removeprefix("data."))
                raise ConfigError(f"{name}={value}: {reason}")
        # Two epochs are kept: a batch may cross the border between them.
        make_order: Callable[[int], np.ndarray] = functools.partial(make_permutation, rows, seed)
        self._epoch_order = functools.lru_cache(maxsize=2)(make_order)
        self._rows = rows

    def __len__(self) -> int:
        return sys.maxsize if self.is_endless else super().__len__()

    def __getitem__(self, item: int) -> dict[str, Any]:
        if not self.is_endless:
            return super().__getitem__(item)
        epoch, position = divmod(self._start + int(item), self._rows)
        return super().__getitem__(int(self._epoch_order(epoch)[position]))
