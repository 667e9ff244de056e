"""Keeps the segments that weights are received in mapped in vLLM's worker.

Invariant: verl's own segments are mapped and closed at each sync, as verl does it.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from verl_pipeline.weight_sync.shared_segment import SEGMENT_PREFIX

# Of the segments that have no name, which are given by their path.
_PATHS = "/proc/"


class _KeptMapping:
    """verl's receiver closes this after each sync; the mapping itself stays."""

    def close(self) -> None:
        return None


def cache_rebuilt_segments(rebuild: Callable) -> Callable:
    """Make verl's ``rebuild_shared_memory(name, size, dtype)`` keep our segments mapped."""
    mapped: dict[str, torch.Tensor] = {}

    @functools.wraps(rebuild)
    def rebuild_shared_memory(name: str, size: int, dtype: torch.dtype = torch.uint8):
        if not name.startswith((SEGMENT_PREFIX, _PATHS)):
            return rebuild(name, size, dtype)
        if name not in mapped or mapped[name].numel() < size:
            # uint8, shape (size,)
            mapped[name] = torch.from_file(
                str(Path("/dev/shm", name)), shared=True, size=size, dtype=torch.uint8
            )
        return mapped[name][:size].view(dtype), _KeptMapping()

    return rebuild_shared_memory
