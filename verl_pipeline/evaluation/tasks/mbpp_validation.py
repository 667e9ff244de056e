"""MBPP's validation split, task ids 511 to 600, for choosing checkpoints without the test split."""

from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData
from verl_pipeline.evaluation.tasks.mbpp import load_ids

VALIDATION_IDS = range(511, 601)


def load_problems(finder: DataFinder) -> TaskData:
    """Load the sanitized problems of the validation split."""
    return load_ids(finder, VALIDATION_IDS)


TASK = Task(
    name="mbpp_validation",
    title="MBPP sanitized, validation split",
    load=load_problems,
    size=43,
    sampling=SamplingParameters(n=8),
    split="validation",
)
