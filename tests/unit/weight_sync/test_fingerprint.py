"""Fingerprints of tensors: exact whatever the sharding, and every changed element shows."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.weight_sync.fingerprint import MODULUS, fingerprint_tensor, observe_weights

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]


@st.composite
def tensors(draw, dtypes=DTYPES):
    rows, columns = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(rows, columns, generator=generator) * 10 ** draw(st.integers(-3, 3))
    return values.abs().clamp(0, 200).to(dtype) if dtype == torch.uint8 else values.to(dtype)


@settings(max_examples=50, deadline=None)
@given(tensors(), st.data())
def test_parts_in_any_order_add_up_to_the_whole(tensor, data):
    axis = data.draw(st.integers(0, 1))
    cut = data.draw(st.integers(0, tensor.shape[axis]))
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(cut))
    parts = [tensor.narrow(axis, 0, cut), tensor.narrow(axis, cut, tensor.shape[axis] - cut)]
    whole = fingerprint_tensor(tensor)
    assert sum(fingerprint_tensor(part).digest for part in parts) % MODULUS == whole.digest
    assert fingerprint_tensor(tensor.reshape(-1)[order]).digest == whole.digest
    assert fingerprint_tensor(tensor.t()).digest == whole.digest
    padded = torch.cat([tensor, torch.zeros(3, tensor.shape[1], dtype=tensor.dtype)])
    assert fingerprint_tensor(padded).digest == whole.digest


@settings(max_examples=100, deadline=None)
@given(tensors(), st.data())
def test_one_changed_bit_of_one_element_changes_the_digest(tensor, data):
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    damaged = tensor.clone()
    index = data.draw(st.integers(0, tensor.numel() - 1))
    bit = data.draw(st.integers(0, 8 * tensor.element_size() - 2))
    damaged.view(-1).view(bits)[index] ^= 1 << bit
    assert fingerprint_tensor(damaged).digest != fingerprint_tensor(tensor).digest


@settings(max_examples=100, deadline=None)
@given(tensors([torch.float32]), st.sampled_from([torch.bfloat16, torch.float16]))
def test_a_wider_copy_is_looked_at_in_the_rollouts_dtype(tensor, dtype):
    stored = tensor.to(dtype)
    assert fingerprint_tensor(tensor, dtype) == fingerprint_tensor(stored)
    assert fingerprint_tensor(stored.float(), dtype) == fingerprint_tensor(stored, dtype)


def test_chunks_do_not_show():
    tensor = torch.randn(3, 200_001)
    halves = [fingerprint_tensor(part) for part in (tensor[:, :77], tensor[:, 77:])]
    whole = fingerprint_tensor(tensor)
    assert sum(half.digest for half in halves) % MODULUS == whole.digest
    assert abs(sum(half.total for half in halves) - whole.total) < 1e-6
    assert fingerprint_tensor(torch.empty(0)).digest == 0
    assert fingerprint_tensor(tensor.t()) == whole
    assert fingerprint_tensor(tensor[:, ::2]).digest != whole.digest


def test_a_sender_passes_weights_on_as_they_are():
    weights = {"a": torch.randn(4), "b": torch.arange(3)}
    observed = {}
    passed = dict(observe_weights(iter(weights.items()), observed, torch.bfloat16))
    assert passed == weights
    assert {name: entry.dtype for name, entry in observed.items()} == {
        "a": "bfloat16",
        "b": "int64",
    }
