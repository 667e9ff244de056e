"""Columns come back bit by bit, whatever they hold, and a repeated one takes no room."""

import enum
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer import row_codec
from verl_pipeline.trainer.row_codec import decode_columns, encode_columns

DTYPES = [torch.int64, torch.int16, torch.uint8, torch.bool, torch.float32, torch.bfloat16]
SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4)


class Color(enum.IntEnum):
    """Stands for a class that is not Python's own."""

    RED = 1


def make_tensor(shape, dtype, data):
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    if dtype is torch.bool:
        raw = bytearray(byte & 1 for byte in raw)
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


@given(SHAPES, st.sampled_from(DTYPES), st.data())
def test_tensors_of_any_shape_and_bits(shapes, dtype, data):
    rows = [make_tensor(shape, dtype, data) for shape in shapes]
    (back,) = decode_columns(encode_columns({"x": rows})).values()
    assert [row.dtype for row in back] == [dtype] * len(rows)
    assert [row.shape for row in back] == [row.shape for row in rows]
    for one, other in zip(rows, back, strict=True):
        assert one.reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.just("$"), inner)
    ),
    max_leaves=12,
)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_plain_objects(rows):
    (back,) = decode_columns(encode_columns({"x": rows})).values()
    assert repr(back) == repr(rows)


def test_objects_of_numpy_torch_and_others():
    rows = [
        np.float64(2.5),
        np.int32(3),
        np.str_("ü"),
        np.bool_(True),
        np.array([[1, 2], [3, 4]]).T,
        np.array([{"x": 1}, None, [1, 2]], dtype=object),
        np.array([], dtype=object),
        {1, 2},
        "half a pair \ud800",
        {"pixels": torch.rand(2, 3), "none": torch.zeros(0)},
        torch.tensor([1, 2]).bfloat16(),
        Color.RED,
    ]
    (back,) = decode_columns(encode_columns({"x": rows})).values()
    assert [type(row) for row in back] == [type(row) for row in rows]
    assert repr(back) == repr(rows)
    back[4][0, 0] = 7  # and can be written to


def test_only_a_foreign_class_is_pickled(monkeypatch):
    def refuse(_data):
        raise AssertionError("unpickled")

    monkeypatch.setattr(row_codec.pickle, "loads", refuse)
    plain = encode_columns({"x": [{"a": (1, b"x", np.float32(1), torch.rand(2))}]})
    assert decode_columns(plain)["x"]
    with pytest.raises(AssertionError, match="unpickled"):
        decode_columns(encode_columns({"x": [Color.RED]}))
    assert pickle.dumps(Color.RED) in encode_columns({"x": [Color.RED]})[0].payload


def test_what_repeats_takes_no_room():
    prompts = [torch.tensor([5, 6]), torch.tensor([7])]
    responses = [torch.tensor([8]), torch.tensor([9, 10, 11])]
    columns = {
        "input_ids": [torch.cat(pair) for pair in zip(prompts, responses, strict=True)],
        "loss_mask": [row.clone() for row in responses],
        "prompts": prompts,
        "responses": responses,
        "position_ids": [torch.arange(3), torch.arange(4)],
        "scores": [torch.tensor([-0.0]), torch.tensor([0.0, 0.0, 0.0])],
        "other": [torch.tensor([0.0]), torch.tensor([0.0, 0.0, 0.0])],
    }
    encoded = encode_columns(columns, ("prompts", "responses"))
    assert {column.name for column in encoded if not column.payload} == {"input_ids", "loss_mask"}
    back = decode_columns(encoded)
    assert back.keys() == columns.keys()
    for name, rows in columns.items():
        assert repr(back[name]) == repr(rows)
