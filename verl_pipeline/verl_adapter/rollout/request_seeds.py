"""Seeds of single requests, with which a run samples the same tokens again.

Invariants:
* A seed follows from ``rollout.seed``, batch, row, member of the group and tokens so far: not from
  timing, replica or trainer mode.
* Every request of a run has one, or none has: on CPUs vLLM drops the seeds of all requests beside
  one without (``TopKTopPSampler.forward_cpu``).

Without them an engine draws from one generator in the order in which its requests arrive, which no
two runs share. verl's ``rollout.full_determinism`` does not serve: it gives every request of a
replica the same seed, so the members of a group are equal.
"""

import zlib
from typing import Any

SEED = "seed"


def compute_seed(*parts: Any) -> int:
    """A seed from 0 to 2**32 - 1 (CRC-32) that follows from ``parts``."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def renew_seed(sampling_params: dict[str, Any], conversation: int) -> dict[str, Any]:
    """Parameters of a later request of a trajectory, which with the first one's seed would draw the
    first one's random numbers again.

    Args:
        conversation: tokens before what it generates.
    """
    if sampling_params.get(SEED) is None:
        return sampling_params
    return sampling_params | {SEED: compute_seed(sampling_params[SEED], conversation)}
