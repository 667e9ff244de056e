"""The texts of a few trajectories of a step, before verl removes its rows."""

import zlib
from collections.abc import Sequence
from typing import Any

from transfer_queue import KVBatchMeta

from verl_pipeline.telemetry.records import Text
from verl_pipeline.trainer.trajectory_keys import parse_prompt, parse_session
from verl_pipeline.trainer.version_spans import VERSION_SPANS, dump_spans, parse_spans
from verl_pipeline.verl_adapter.trajectories.trajectory_store import read_fields


def choose_keys(batch: KVBatchMeta, count: int) -> list[int]:
    """Up to ``count`` rows of a batch, the same ones for the same keys, no padding."""
    rows = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    return sorted(rows, key=lambda row: zlib.crc32(batch.keys[row].encode()))[:count]


def read_texts(batch: KVBatchMeta, rows: Sequence[int], step: int, tokenizer: Any) -> list[Text]:
    """The texts of these rows.

    Args:
        tokenizer: decodes token ids.
    """
    keys = [batch.keys[row] for row in rows]
    if not keys:
        return []
    data = read_fields(keys, batch.partition_id, ["prompts", "responses", "reward_model"])
    truths = list(data["reward_model"]) if "reward_model" in data else [None] * len(keys)
    texts = []
    for row, prompt, response, truth in zip(
        rows, data["prompts"].unbind(), data["responses"].unbind(), truths, strict=True
    ):
        tag, truth = batch.tags[row], getattr(truth, "data", truth)
        versions = {tag.get("min_global_steps"), tag.get("max_global_steps")}
        (version,) = versions if len(versions) == 1 else (None,)
        spans = None if version is None else [[int(version), len(response)]]
        expected = truth.get("ground_truth") if isinstance(truth, dict) else None
        texts.append(
            Text(
                parse_prompt(batch.keys[row]),
                parse_session(batch.keys[row]),
                step,
                tokenizer.decode(prompt.tolist()),
                tokenizer.decode(response.tolist()),
                None if expected is None else str(expected),
                dump_spans(parse_spans(tag.get(VERSION_SPANS))) or spans,
            )
        )
    return texts
