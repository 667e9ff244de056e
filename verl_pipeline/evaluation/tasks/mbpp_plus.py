"""MBPP+ (Liu et al. 2023): 378 problems of MBPP with some thirty-five times as many tests."""

from verl_pipeline.evaluation.data import Finder, Hub, Row
from verl_pipeline.evaluation.task import Item, Loaded, Sampling, Task
from verl_pipeline.evaluation.tasks._reading import read_all
from verl_pipeline.evaluation.tasks.mbpp import item_of
from verl_pipeline.grading.readers import read_mbpp_plus


def load(finder: Finder) -> Loaded:
    """All problems, in the hub's form."""
    rows, origin = finder.find(
        ["mbppplus", "mbpp_plus"], hub=Hub("evalplus/mbppplus", ("data/*.parquet",))
    )

    def read(_number: int, row: Row) -> Item:
        return item_of(row, read_mbpp_plus(row))

    return read_all(rows, origin, read)


TASK = Task(name="mbpp_plus", title="MBPP+", load=load, sampling=Sampling(n=8))
