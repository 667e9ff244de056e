"""How many bytes the weights of a model take on their way, from its files.

Invariant: only the heads of the files are read.
"""

import json
import math
from pathlib import Path

import torch

# Wider than any dtype that a trainer holds masters in.
_MASTER = torch.float32.itemsize


def count_weight_bytes(folder: Path, dtype: torch.dtype | None) -> int | None:
    """Bytes of the weights in ``folder`` as :func:`.rollout_dtype.narrow_weight` lets them travel.

    Args:
        folder: of a model in Hugging Face's format.
        dtype: that matrices travel in; None: the trainer's, of which the widest is assumed.

    Returns:
        None if the folder has no safetensors files, or they cannot be read.
    """
    matrix = _MASTER if dtype is None else dtype.itemsize
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors = _read_head(path)
            shapes = [entry["shape"] for name, entry in tensors.items() if name != "__metadata__"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # whoever loads the model says what is wrong with it
        total += sum(math.prod(shape) * (matrix if len(shape) > 1 else _MASTER) for shape in shapes)
    return total or None


def _read_head(path: Path) -> dict:
    """Name to dtype, shape and place of the tensors of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(min(size, path.stat().st_size)))
