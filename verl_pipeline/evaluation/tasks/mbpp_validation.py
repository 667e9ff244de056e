"""MBPP's own validation split (task ids 511 to 600): to choose checkpoints on, without touching the
test split.
"""

from verl_pipeline.evaluation.data import Finder
from verl_pipeline.evaluation.task import Loaded, Sampling, Task
from verl_pipeline.evaluation.tasks.mbpp import load_ids

VALIDATION = range(511, 601)


def load(finder: Finder) -> Loaded:
    """The sanitized problems of the validation split."""
    return load_ids(finder, VALIDATION)


TASK = Task(
    name="mbpp_validation",
    title="MBPP sanitized, validation split",
    load=load,
    sampling=Sampling(n=8),
    split="validation",
)
