"""Batches that a checkpoint holds: sampled, not yet trained, in one compressed file of ours.

    global_step_<k>/held_batches.arrow    Arrow's stream format, zstd. The schema's metadata has the
                                          format and the number of keys. Each record batch is a part
                                          of the rows, with a row for each column of theirs: key,
                                          tag, then fields (:mod:`verl_pipeline.trainer.row_codec`)

verl would save TransferQueue itself: every row on the node of its storage unit, batch k with all
that its update computed, for the same number of storage units only.

Invariants:
* The trainer's process alone writes and reads the file, through TransferQueue's public API. No
  other node needs to see it, and a queue of any size and number of units can take it.
* What is restored equals what was saved, field by field. A field that only some rows of a part
  have is left out, as TransferQueue leaves it out of what it gives, and so is the traceback of a
  prompt, whose cause is in its tag.
* The file is complete or absent: it gets its name once it is on the disk.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transfer_queue as tq
from verl.utils import tensordict_utils as tu

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.files import replace_file
from verl_pipeline.trainer.row_codec import EncodedColumn, decode_columns, encode_columns
from verl_pipeline.trainer.trajectory_keys import make_loader_sort_key, parse_batch
from verl_pipeline.verl_adapter.trajectories.trajectory_store import TRAIN, list_tags, remove_rows

FORMAT = b"verl-pipeline held batches 1"
# A part is in memory as a whole, with some 100 bytes for each of its tokens.
PART_TOKENS = 1 << 20
# Fields whose rows, one after the other, another field may repeat.
JOINED = ("prompts", "responses")
_LABELS = ("key", "tag")
_COMPRESSION_LEVEL = 3
_SCHEMA = pa.schema(
    [("name", pa.string()), ("header", pa.large_string()), ("payload", pa.large_binary())]
)

Columns = dict[str, list[Any]]


class HeldBatchesError(UserError):
    """The sampled batches of a checkpoint cannot be restored; the message says what to do."""


def save_held_batches(path: Path, trained_step: int, lead: int) -> int:
    """Write the batches after ``trained_step``, up to ``lead``; there may be none.

    Returns:
        The number of keys (prompts and trajectories) in the file.

    Raises:
        OutputError: the system refuses, as on a full disk; the earlier content is intact.
    """
    tags = {
        key: tag
        for key, tag in list_tags(TRAIN).items()
        if is_held(key, trained_step) and (parse_batch(key) or 0) <= lead
    }
    schema = _SCHEMA.with_metadata({"format": FORMAT, "keys": str(len(tags))})
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", _COMPRESSION_LEVEL))
    with replace_file(path) as file, pa.ipc.new_stream(file, schema, options=options) as stream:
        for keys in _split_into_parts(tags):
            labels: Columns = {"key": keys, "tag": [tags[key] for key in keys]}
            is_prompt = tags[keys[0]].get("is_prompt", False)
            fields = {} if is_prompt else _read_fields(keys)
            columns = encode_columns(labels) + encode_columns(fields, JOINED)
            parts = [[getattr(column, name) for column in columns] for name in schema.names]
            stream.write_batch(pa.record_batch(parts, schema=schema))
    return len(tags)


def is_held(key: str, trained_step: int) -> bool:
    """Whether a key of TransferQueue is of a batch of ours after ``trained_step``.

    The others are of trained batches, verl's padding, or of another trainer mode.
    """
    batch = parse_batch(key)
    return batch is not None and batch > trained_step


def _split_into_parts(tags: dict[str, dict]) -> Iterator[list[str]]:
    """Prompts, which have no fields, then trajectories of about :data:`PART_TOKENS` together."""
    prompts = [key for key, tag in tags.items() if tag.get("is_prompt", False)]
    if prompts:
        yield prompts
    part: list[str] = []
    tokens = 0
    for key in sorted(tags.keys() - set(prompts), key=make_loader_sort_key):
        size = tags[key].get("prompt_len", 0) + tags[key].get("response_len", 0)
        if part and tokens + size > PART_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(key)
        tokens += size
    if part:
        yield part


def _read_fields(keys: list[str]) -> Columns:
    data = tq.kv_batch_get(keys=keys, partition_id=TRAIN)
    values = {name: tu.get(data, name) for name in data.keys()}  # noqa: SIM118  (it is no dict)
    return {
        name: list(value.unbind() if isinstance(value, torch.Tensor) else value)
        for name, value in values.items()
    }


def load_held_batches(path: Path) -> int:
    """Put all that :func:`save_held_batches` wrote into TransferQueue.

    Returns:
        The number of keys.

    Raises:
        HeldBatchesError: the file is damaged, or of another format.
    """
    loaded = 0
    for columns in read_parts(path):
        keys, tags = (columns.pop(label) for label in _LABELS)
        _put_rows(keys, tags, columns)
        loaded += len(keys)
    return loaded


def read_parts(path: Path) -> Iterator[Columns]:
    """The columns of each part: key and tag, then fields.

    Raises:
        HeldBatchesError: as :func:`load_held_batches`.
    """
    count = 0
    try:
        with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
            metadata = stream.schema.metadata or {}
            if metadata.get(b"format") != FORMAT:
                raise ValueError(f"its format is {metadata.get(b'format')!r}, not {FORMAT!r}")
            for part in stream:
                rows = [EncodedColumn(**row) for row in part.to_pylist()]
                labels = decode_columns(rows[: len(_LABELS)])
                count += len(labels[_LABELS[0]])
                yield labels | decode_columns(rows[len(_LABELS) :])
            if count != int(metadata[b"keys"]):
                raise ValueError(f"it ends after {count} of {int(metadata[b'keys'])} keys")
    except (OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise HeldBatchesError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); resume from an earlier "
            "checkpoint (trainer.resume_mode=resume_path trainer.resume_from_path=...), or remove "
            "the file: the run then goes on without the prompts of the batch sampled ahead"
        ) from error


def _put_rows(keys: list[str], tags: list[dict], fields: Columns) -> None:
    if not fields:
        tq.kv_batch_put(keys=keys, partition_id=TRAIN, tags=tags)
        return
    rows = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
    try:
        puts = [(keys, tags, tu.list_of_dict_to_tensordict(rows))]
    except RuntimeError:  # tensors that are ragged in two dimensions have no batch
        batches = [tu.list_of_dict_to_tensordict([row]) for row in rows]
        puts = [([key], [tag], row) for key, tag, row in zip(keys, tags, batches, strict=True)]
    for some_keys, some_tags, data in puts:
        tq.kv_batch_put(keys=some_keys, partition_id=TRAIN, fields=data, tags=some_tags)


def load_snapshot(folder: Path, trained_step: int) -> int:
    """Restore verl's own copy of TransferQueue, of a run before held batches had a file.

    Returns:
        The number of prompts that another trainer mode had begun. They are removed, since this
        mode never trains them.

    Raises:
        HeldBatchesError: TransferQueue refuses, or cannot reach the files.
    """
    try:
        tq.load_checkpoint(folder)
    except Exception as error:  # a storage unit answers with whatever went wrong there
        raise HeldBatchesError(
            f"{folder}: TransferQueue cannot restore it ({' '.join(str(error).split())}); every "
            "node must be able to read this copy of an earlier version. Or remove the folder to go "
            "on without the prompts of the batch sampled ahead"
        ) from error
    tags = list_tags(TRAIN)
    others = [key for key in tags if not is_held(key, trained_step)]
    remove_rows(others, TRAIN)
    prompts = [key for key in others if tags[key].get("is_prompt", False)]
    return sum(parse_batch(key) is None for key in prompts)


def count_snapshot_units(folder: Path) -> int | None:
    """Storage units that a copy of verl's was written by; None if it does not say."""
    manifest = folder / "simple_storage" / "storage_unit_info.json"
    try:
        return len(json.loads(manifest.read_text()))
    except (OSError, ValueError):
        return None
