"""The bytes of a model's weights from the heads of its files."""

import pytest
import torch
from safetensors.torch import save_file

from verl_pipeline.weight_sync.model_files import count_weight_bytes
from verl_pipeline.weight_sync.rollout_dtype import narrow_weight

WEIGHTS = {"a": torch.zeros(3, 5), "b": torch.zeros(7), "c": torch.zeros(2, 2, 2)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_bytes_are_those_that_travel(tmp_path, dtype):
    for name, weight in WEIGHTS.items():
        save_file({name: weight}, tmp_path / f"{name}.safetensors", metadata={"format": "pt"})
    wanted = sum(narrow_weight(weight, dtype).nbytes for weight in WEIGHTS.values())
    assert count_weight_bytes(tmp_path, dtype) == wanted
    assert count_weight_bytes(tmp_path, None) == sum(w.nbytes for w in WEIGHTS.values())


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100, b"\2\0\0\0\0\0\0\0[]"])
def test_what_cannot_be_read_is_not_counted(tmp_path, content):
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    assert count_weight_bytes(tmp_path, None) is None
