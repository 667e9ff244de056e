"""MBPP+ (Liu et al. 2023): 378 problems of MBPP with about 35 times as many tests."""

from verl_pipeline.evaluation.data import DataFinder, HubFiles
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.evaluation.tasks.mbpp import make_item
from verl_pipeline.grading.readers import read_mbpp_plus


def load_problems(finder: DataFinder) -> TaskData:
    """Load all problems in the hub's form."""
    rows, origin = finder.find_rows(
        ["mbppplus", "mbpp_plus"], hub=HubFiles("evalplus/mbppplus", ("data/*.parquet",))
    )

    return read_items(rows, origin, lambda _number, row: make_item(row, read_mbpp_plus(row)))


TASK = Task(
    name="mbpp_plus",
    title="MBPP+",
    load=load_problems,
    size=378,
    sampling=SamplingParameters(n=8),
)
