"""Host memory that a GPU copies from and to at full speed.

Invariant: without a GPU, or where the driver refuses, memory stays as it is; only copies are
slower.
"""

import logging

import torch

logger = logging.getLogger(__name__)


def pin_memory(memory: torch.Tensor) -> bool:
    """Pin mapped memory (uint8, on page boundaries) for the rest of this process's life.

    Returns:
        Whether it is pinned now.
    """
    if not torch.cuda.is_available() or not memory.numel():
        return False
    status = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
    if status != torch.cuda.cudart().cudaError.success:
        logger.warning(
            "cannot pin %d MiB of host memory (%s): weights are copied to the GPU more slowly",
            memory.numel() >> 20,
            status,
        )
        return False
    return True
