"""Fields of every token between TransferQueue and flat tensors, moved in parts of some rows.

Invariant: no field is copied as a whole on its way. A part stays in the processor's cache from one
copy to the next; whole fields (hundreds of MB) go through memory each time.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from transfer_queue import KVBatchMeta

from verl_pipeline.verl_adapter.jagged.rows import cut_responses, make_nested, split_blocks
from verl_pipeline.verl_adapter.trajectories.trajectory_store import put_fields, read_fields

# Tokens of a part: 16 MiB of float32. Smaller ones cost more questions to TransferQueue.
PART_TOKENS = 1 << 22


def read_token_fields(
    batch: KVBatchMeta,
    lengths: torch.Tensor,
    *,
    sequences: Sequence[str],
    responses: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """Values of the response tokens, shape (T,), by field.

    Args:
        lengths: int64, shape (n,); response lengths, their sum is T.
        sequences: fields with a value for each token of prompt and response.
        responses: fields with a value for each token of the response.
    """
    flat: dict[str, torch.Tensor] = {}
    for rows, tokens in split_blocks(lengths, PART_TOKENS):
        data = read_fields(batch.keys[rows], batch.partition_id, [*sequences, *responses])
        for name in (*sequences, *responses):
            values = data.pop(name)
            part = cut_responses(values, lengths[rows]) if name in sequences else values.values()
            if name not in flat:
                flat[name] = part.new_empty(int(lengths.sum()))
            flat[name][tokens] = part
    return flat


def write_token_fields(
    batch: KVBatchMeta, fields: Mapping[str, torch.Tensor], lengths: torch.Tensor
) -> KVBatchMeta:
    """Write values of the response tokens, shape (T,); the batch as verl hands it on."""
    tags: list[dict] = []
    written = copy.copy(batch)  # to make one copies all tags
    for rows, tokens in split_blocks(lengths, PART_TOKENS):
        parts = {
            name: make_nested(values[tokens], lengths[rows]) for name, values in fields.items()
        }
        part = put_fields(batch.keys[rows], batch.partition_id, parts)
        tags += part.tags
        written.fields = part.fields
    written.tags, written.extra_info = tags, {}
    return written
