"""The training prompts as one endless stream, so that runs which follow each other can share it
without a gap.

    data.custom_cls.path=pkg://verl_pipeline.trainer.stream data.custom_cls.name=PromptStream
    data.shuffle=False data.seed=1 +data.stream_start=0

Row i of the data set is prompt ``stream_start + i`` of the stream: the permutations of epoch 0, 1,
2, ... one after the other. A run with another batch size that begins where the one before stopped
gets the next prompts: none is lost at an epoch's end, none comes twice within one.

Invariants:
* A prompt of the stream follows from (number of rows, seed, position) alone; there is no state.
  verl's sequential sampler counts the rows it gave, and torchdata's loader restores that count, so
  a resumed run goes on at the prompt.
* Validation files are an ordinary data set.

A data set and not a sampler, since verl 0.9.1 lets the first be chosen, the second not.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_pipeline.trainer.config import ConfigError


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the rows in an epoch: ``rows`` integers. RandomState's stream is frozen (NEP 19),
    unlike Generator's.
    """
    return np.random.RandomState([seed, epoch]).permutation(rows)


class PromptStream(RLHFDataset):
    """verl's data set in the stream's order.

    Raises:
        ConfigError: a setting that contradicts the stream, or fewer rows than a batch has.
    """

    def __init__(self, data_files: Any, *args: Any, **kwargs: Any):
        config = kwargs["config"]
        # verl makes both data sets alike and says of neither which one it is.
        self.endless = data_files == config.train_files
        super().__init__(data_files, *args, **kwargs)
        if not self.endless:
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
                "the stream has an order of its own; set it False",
            ),
            (
                not isinstance(seed, int) or seed < 0,
                "data.seed",
                "the stream's order needs a number of at least 0",
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
                raise ConfigError(f"{name}={config.get(name.removeprefix('data.'))}: {reason}")
        # A batch may lie across the border of two epochs.
        order: Callable[[int], np.ndarray] = functools.partial(permutation, rows, seed)
        self._order = functools.lru_cache(maxsize=2)(order)
        self._rows = rows

    def __len__(self) -> int:
        return sys.maxsize if self.endless else super().__len__()

    def __getitem__(self, item: int) -> dict[str, Any]:
        if not self.endless:
            return super().__getitem__(item)
        epoch, position = divmod(self._start + int(item), self._rows)
        return super().__getitem__(int(self._order(epoch)[position]))
