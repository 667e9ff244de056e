"""What a selector is told of verl's training set: order, labels, measured pass rates.

Invariant: the order of an epoch is the one that verl's own sampler and data loader give, since they
are what gives it here, over row numbers in place of rows.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash
from omegaconf import DictConfig
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler

from verl_pipeline.curriculum.protocol import PromptTable
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ConfigError

SELECTOR = f"{PIPELINE_KEY}.curriculum.selector"
_EXTRA, _SOURCE = "extra_info", "data_source"
_READ_ROWS = 1000


def read_prompt_table(dataset: Any, settings: DictConfig) -> tuple[PromptTable, str]:
    """The table of a training set, and a fingerprint of its prompts in their order.

    Args:
        dataset: verl's ``RLHFDataset``, or one that extends it.
        settings: verl's section ``data``.

    Raises:
        ConfigError: the data set has no table of rows, or an order of its own.
    """
    table = getattr(dataset, "dataframe", None)
    if table is None or not hasattr(table, "select_columns") or len(table) != len(dataset):
        raise ConfigError(
            f"{SELECTOR}: a selector chooses rows of verl's RLHFDataset, and "
            f"{type(dataset).__name__} (data.custom_cls) has an order of its own; use verl's data "
            f"set, or set {SELECTOR}=null"
        )
    digest = xxhash.xxh3_64()
    sources, difficulties, pass_rates = [], [], []
    for row in _read_rows(dataset, _SOURCE, _EXTRA):
        text = json.dumps(row.get(dataset.prompt_key), sort_keys=True, default=str)
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
        extra = row.get(_EXTRA) or {}
        rate = extra.get("pass_rate")
        sources.append(str(extra.get("source") or row.get(_SOURCE) or ""))
        difficulties.append(str(extra.get("difficulty") or ""))
        pass_rates.append(np.nan if rate is None else min(max(float(rate), 0.0), 1.0))
    prompts = PromptTable(
        order=make_order(settings, len(table)),
        sources=sources,
        difficulties=difficulties,
        pass_rates=np.array(pass_rates, dtype=np.float64),
        read_texts=lambda: [_join_texts(row[dataset.prompt_key]) for row in _read_rows(dataset)],
    )
    return prompts, digest.hexdigest()


def make_order(settings: DictConfig, rows: int) -> Callable[[int], np.ndarray]:
    """The order of the rows by epoch, as verl's data loader has it.

    Args:
        settings: verl's section ``data``.
    """
    numbers = range(rows)
    # With workers, the loader makes another order of the same seed; their number changes nothing.
    workers = min(settings.get("dataloader_num_workers") or 0, 1)

    def begin() -> Iterator[np.ndarray]:
        sampler = create_rl_sampler(settings, numbers)
        loader = StatefulDataLoader(
            numbers, batch_size=rows, num_workers=workers, sampler=sampler, collate_fn=np.array
        )
        while True:
            (order,) = loader
            yield order

    epochs, known = begin(), dict[int, np.ndarray]()

    def read_order(epoch: int) -> np.ndarray:
        nonlocal epochs
        if epoch not in known:
            newest = max(known, default=-1)
            if epoch < newest:
                epochs, newest = begin(), -1
                known.clear()
            for number in range(newest + 1, epoch + 1):
                known[number] = next(epochs)
            for number in sorted(known)[:-2]:
                del known[number]
        return known[epoch]

    return read_order


def _read_rows(dataset: Any, *others: str) -> Iterator[dict[str, Any]]:
    """The prompt of each row, and other columns if there are any."""
    table = dataset.dataframe
    names = [name for name in (dataset.prompt_key, *others) if name in table.column_names]
    for part in table.select_columns(names).iter(_READ_ROWS):
        for values in zip(*(part[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _join_texts(prompt: Any) -> str:
    """The text of a chat, or of a prompt that is text."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(message.get("content", "")) for message in prompt)
