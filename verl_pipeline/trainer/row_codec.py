"""Columns of tensors and Python objects as JSON and bytes that compress well.

A column is one field of many rows: a tensor of any shape for each row, or any object for each row.
A column that repeats others (verl's ``input_ids`` are its prompts and responses) is stored by name.

Invariants:
* Decoding gives back every value bit by bit, with its dtype, shape and Python type.
* Decoding runs no code of the encoded data, unless a row holds an object of a class that is neither
  Python's, numpy's nor torch's own: such an object is pickled.
"""

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Integers that numpy and torch share; they are stored in the narrowest that holds a column.
_NARROW = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Marks a dict of ours among the encoded objects.
_KIND = "$"

Column = Sequence[Any]


@dataclass(frozen=True)
class EncodedColumn:
    """One column: ``header`` is JSON."""

    name: str
    header: str
    payload: bytes


def encode_columns(
    columns: Mapping[str, Column], joined: tuple[str, ...] = ()
) -> list[EncodedColumn]:
    """Encode columns of equally many rows, at least one.

    Args:
        columns: by name; a column of one dtype's tensors is encoded as such, all others as objects.
        joined: names of columns that others may be a concatenation of, row by row.
    """
    first = [name for name in joined if name in columns]
    encoded: list[EncodedColumn] = []
    tensors: dict[str, Column] = {}
    for name in dict.fromkeys((*first, *columns)):
        rows = columns[name]
        if all(isinstance(row, torch.Tensor) and row.dtype == rows[0].dtype for row in rows):
            source = _find_source(rows, tensors, joined)
            if source:
                encoded.append(EncodedColumn(name, json.dumps({"rows_of": source}), b""))
                continue
            tensors[name] = rows
            kind, (header, payload) = "tensors", encode_tensors(rows)
        else:
            kind, (header, payload) = "objects", encode_objects(rows)
        encoded.append(EncodedColumn(name, f'{{"{kind}": {header}}}', payload))
    return encoded


def decode_columns(encoded: Iterable[EncodedColumn]) -> dict[str, list[Any]]:
    """The columns that :func:`encode_columns` got."""
    columns: dict[str, list[Any]] = {}
    for column in encoded:
        ((kind, fields),) = json.loads(column.header).items()
        if kind == "rows_of":
            columns[column.name] = _join_rows([columns[name] for name in fields])
        else:
            decode: Any = {"tensors": decode_tensors, "objects": decode_objects}[kind]
            columns[column.name] = decode(fields, column.payload)
    return columns


def _find_source(
    rows: Column, known: Mapping[str, Column], joined: tuple[str, ...]
) -> list[str] | None:
    """Names of the columns whose rows, joined, are ``rows``."""
    sources = [[name] for name in known]
    if len(joined) > 1 and all(name in known for name in joined):
        sources.append(list(joined))
    for source in sources:
        columns = [known[name] for name in source]
        if all(_is_joined(row, parts) for row, *parts in zip(rows, *columns, strict=True)):
            return source
    return None


def _is_joined(row: torch.Tensor, parts: list[torch.Tensor]) -> bool:
    if len(parts) == 1:
        (part,) = parts
        return part.dtype == row.dtype and part.shape == row.shape and _are_same(part, row)
    if any(part.dim() != 1 or part.dtype != row.dtype for part in parts) or row.dim() != 1:
        return False
    return sum(map(len, parts)) == len(row) and _are_same(torch.cat(parts), row)


def _are_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit by bit: torch's own comparison takes 0.0 for -0.0 and no NaN for itself."""
    views = [row.contiguous().reshape(-1).view(torch.uint8) for row in (one, other) if row.numel()]
    return not views or torch.equal(*views)


def _join_rows(columns: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    if len(columns) == 1:
        return columns[0]
    return [torch.cat(parts) for parts in zip(*columns, strict=True)]


def encode_tensors(rows: Sequence[torch.Tensor]) -> tuple[str, bytes]:
    """Encode one tensor for each row, all of one dtype, as a header in JSON and a payload.

    Integers are stored in the narrowest type that holds them or, if that is narrower, their
    differences; all values byte by byte, first bytes first, since those repeat most.
    """
    flat = torch.cat([row.detach().cpu().reshape(-1) for row in rows])
    header: dict[str, Any] = {
        "dtype": str(flat.dtype).removeprefix("torch."),
        "shapes": [row.shape[0] if row.dim() == 1 else list(row.shape) for row in rows],
    }
    if flat.dtype in _INTEGERS:
        values, header["differences"] = _narrow(flat.numpy())
    else:
        values = flat.view(torch.uint8).numpy().view(f"V{flat.element_size()}")
    header["stored"] = values.dtype.str
    return json.dumps(header), _split_bytes(values)


def decode_tensors(fields: dict[str, Any], payload: bytes) -> list[torch.Tensor]:
    """The tensors that :func:`encode_tensors` got; ``fields`` is its header, parsed."""
    dtype = getattr(torch, fields["dtype"])
    values = _join_bytes(payload, np.dtype(fields["stored"]))
    flat = torch.empty(len(values), dtype=dtype)
    if dtype in _INTEGERS:
        wide = values.astype(np.int64)
        flat.numpy()[:] = wide.cumsum() if fields["differences"] else wide
    else:
        flat.view(torch.uint8).numpy()[:] = values.view(np.uint8)
    shapes = [[shape] if isinstance(shape, int) else shape for shape in fields["shapes"]]
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    return [row.reshape(shape) for row, shape in zip(flat.split(sizes), shapes, strict=True)]


def _narrow(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """``values`` (integers, shape (n,)) in a narrower type, and whether as differences."""
    wide = values.astype(np.int64)
    # Differences wrap around at 64 bits, and so does their sum.
    candidates = [wide, np.diff(wide, prepend=np.int64(0))]
    narrowed = [_narrow_type(candidate) for candidate in candidates]
    is_difference = narrowed[1].itemsize < narrowed[0].itemsize
    return candidates[is_difference].astype(narrowed[is_difference]), bool(is_difference)


def _narrow_type(values: np.ndarray) -> np.dtype:
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    return next(
        np.dtype(name)
        for name in _NARROW
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max
    )


def _split_bytes(values: np.ndarray) -> bytes:
    """All first bytes, then all second bytes, and so on."""
    return values.view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()


def _join_bytes(payload: bytes, dtype: np.dtype) -> np.ndarray:
    planes = np.frombuffer(payload, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def encode_objects(rows: Sequence[Any]) -> tuple[str, bytes]:
    """Encode one object for each row as a header in JSON and a payload."""
    blobs = bytearray()
    return json.dumps([_encode_object(row, blobs) for row in rows]), bytes(blobs)


def decode_objects(values: list[Any], payload: bytes) -> list[Any]:
    """The objects that :func:`encode_objects` got; ``values`` is its header, parsed."""
    return [_decode_object(value, payload) for value in values]


def _encode_object(value: Any, blobs: bytearray) -> Any:
    # By exact type: a subclass (numpy's float64 is a float, an enumeration an int) is another one.
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if abs(value) < 2**63 else {_KIND: "int", "hex": hex(value)}
    if kind is list:
        return [_encode_object(entry, blobs) for entry in value]
    if kind in (tuple, set, frozenset):
        return {_KIND: kind.__name__, "values": [_encode_object(entry, blobs) for entry in value]}
    if kind is dict:
        if all(type(key) is str for key in value) and _KIND not in value:
            return {key: _encode_object(entry, blobs) for key, entry in value.items()}
        pairs = [[_encode_object(part, blobs) for part in pair] for pair in value.items()]
        return {_KIND: "dict", "pairs": pairs}
    if kind is np.ndarray and value.dtype.kind == "O":
        entries = [_encode_object(entry, blobs) for entry in value.reshape(-1)]
        return {_KIND: "objects", "shape": list(value.shape), "values": entries}
    if kind is np.ndarray and value.dtype.kind in "biufcSUmM":
        return _add_blob("array", value.tobytes(), blobs) | {
            "dtype": value.dtype.str,
            "shape": list(value.shape),
        }
    if isinstance(value, np.generic) and value.dtype.kind in "biufcSUmM":
        return _add_blob("scalar", value.tobytes(), blobs) | {"dtype": value.dtype.str}
    if kind is torch.Tensor and value.layout is torch.strided and not value.is_quantized:
        header, payload = encode_tensors([value])
        return _add_blob("tensor", payload, blobs) | {"header": json.loads(header)}
    if kind is bytes:
        return _add_blob("bytes", value, blobs)
    return _add_blob("pickle", pickle.dumps(value), blobs)


def _add_blob(kind: str, data: bytes, blobs: bytearray) -> dict[str, Any]:
    blobs += data
    return {_KIND: kind, "end": len(blobs), "size": len(data)}


def _decode_object(value: Any, blobs: bytes) -> Any:
    if isinstance(value, list):
        return [_decode_object(entry, blobs) for entry in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: _decode_object(entry, blobs) for key, entry in value.items()}
    kind = value[_KIND]
    if kind == "int":
        return int(value["hex"], 16)
    if kind in ("tuple", "set", "frozenset", "objects"):
        entries = [_decode_object(entry, blobs) for entry in value["values"]]
        if kind != "objects":
            return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](entries)
        array = np.empty(len(entries), dtype=object)
        for position, entry in enumerate(entries):
            array[position] = entry
        return array.reshape(value["shape"])
    if kind == "dict":
        return {
            _decode_object(key, blobs): _decode_object(entry, blobs)
            for key, entry in value["pairs"]
        }
    data = blobs[value["end"] - value["size"] : value["end"]]
    if kind == "array":
        # A copy: what numpy reads from bytes cannot be written to.
        return np.frombuffer(data, value["dtype"]).reshape(value["shape"]).copy()
    if kind == "scalar":
        return np.frombuffer(data, value["dtype"])[0]
    if kind == "tensor":
        return decode_tensors(value["header"], data)[0]
    return data if kind == "bytes" else pickle.loads(data)
