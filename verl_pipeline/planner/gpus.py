"""GPUs that a profile can be made for, as their data sheets describe them.

Invariant: peaks are those of dense bf16 and of the whole memory; what is reached of them is
assumed, here for training and in :mod:`.model_profile` for the rest.
"""

from dataclasses import dataclass

from verl_pipeline.planner.profile_error import ProfileError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        title: as its maker calls it.
        flops: dense bf16 operations per second.
        bandwidth: of its memory, bytes per second.
        memory: bytes.
        source: where the numbers are from.
        training_share: of ``flops`` that training is assumed to reach. More on an H20, whose memory
            is fast for its few FLOP/s: verl's DAPO table on it has 0.54 to 0.68.
    """

    title: str
    flops: float
    bandwidth: float
    memory: float
    source: str
    training_share: float = 0.3


GPUS = {
    "a100": Gpu(
        "A100 80GB SXM",
        312e12,
        2.039e12,
        80e9,
        "NVIDIA A100 80GB data sheet: 312 TFLOPS, 2,039 GB/s",
    ),
    "h100": Gpu(
        "H100 SXM",
        989e12,
        3.35e12,
        80e9,
        "NVIDIA H100 data sheet: 1,979 TFLOPS with sparsity, half of it dense; 3.35 TB/s",
    ),
    "h200": Gpu(
        "H200 SXM",
        989e12,
        4.8e12,
        141e9,
        "NVIDIA H200 data sheet: 1,979 TFLOPS with sparsity, half of it dense; 4.8 TB/s, 141 GB",
    ),
    "h20": Gpu(
        "H20",
        148e12,
        4.0e12,
        96e9,
        "distributors' specifications (no data sheet of NVIDIA's): 148 TFLOPS, 4.0 TB/s, 96 GB",
        0.5,
    ),
}


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its name, in any case.

    Raises:
        ProfileError: it is not in the table.
    """
    if name.lower() not in GPUS:
        raise ProfileError(
            f"--gpu {name}: unknown; one of {', '.join(sorted(GPUS))}, or write a profile with its "
            "rates (docs/planner/profiles.md)"
        )
    return GPUS[name.lower()]
