"""What is cast on its way to the rollout, and what stays."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.weight_sync.rollout_dtype import NarrowedWeights, narrow_weight, parse_dtype

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]
OTHERS = [torch.int64, torch.int8, torch.uint8, torch.bool]


@given(
    st.sampled_from([*FLOATS, *OTHERS]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, None]),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_only_wider_matrices_are_cast(held, sent, shape):
    weight = torch.ones(shape).to(held)
    narrowed = narrow_weight(weight, sent)
    is_cast = (
        sent is not None and held in FLOATS and held.itemsize > sent.itemsize and len(shape) >= 2
    )
    assert narrowed.dtype == (sent if is_cast else held)
    assert narrowed is weight or is_cast
    assert torch.equal(narrowed.double(), weight.double())


def test_all_is_passed_on_in_order_and_counted():
    weights = {"w": torch.ones(4, 4), "bias": torch.ones(4), "ids": torch.ones(2, 2).long()}
    narrowed = NarrowedWeights(iter(weights.items()), torch.bfloat16)
    assert [name for name, _weight in narrowed] == list(weights)
    assert (narrowed.nbytes, narrowed.tensors) == (16 * 2 + 4 * 4 + 4 * 8, 3)


@pytest.mark.parametrize("name", ["auto", "int64", "float33", "nn", ""])
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match=f"rollout_dtype={name}: no floating-point dtype"):
        parse_dtype(name)
