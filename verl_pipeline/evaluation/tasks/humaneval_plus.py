"""HumanEval+ (Liu et al. 2023): HumanEval's 164 functions with about 80 times as many tests."""

from verl_pipeline.evaluation.data import DataFinder, HubFiles
from verl_pipeline.evaluation.task import PublishedResult, SamplingParameters, Task, TaskData
from verl_pipeline.evaluation.tasks._rows import read_items
from verl_pipeline.evaluation.tasks.humaneval import make_item

_BLOG = "DeepCoder blog post, April 2025"
_NOTE = "number of samples not stated; rLLM's grader, which a program can end with sys.exit(0)"


def load_problems(finder: DataFinder) -> TaskData:
    """Load all problems in the hub's form; EvalPlus's own release file lacks ``test``."""
    rows, origin = finder.find_rows(
        ["humanevalplus", "HumanEvalPlus", "humaneval_plus"],
        hub=HubFiles("evalplus/humanevalplus", ("data/*.parquet",)),
    )
    return read_items(rows, origin, lambda _number, row: make_item(row, "humanevalplus"))


TASK = Task(
    name="humaneval_plus",
    title="HumanEval+",
    load=load_problems,
    size=164,
    sampling=SamplingParameters(n=8, max_tokens=32768),
    published=(
        PublishedResult("DeepCoder-14B-Preview", 92.6, "pass@1", _BLOG, _NOTE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-14B", 92.0, "pass@1", _BLOG, _NOTE),
        PublishedResult("o3-mini-2025-1-31 (low)", 92.6, "pass@1", _BLOG, _NOTE),
        PublishedResult("o1-2024-12-17 (low)", 90.8, "pass@1", _BLOG, _NOTE),
        PublishedResult("DeepCoder-1.5B-Preview", 73.0, "pass@1", _BLOG, _NOTE),
        PublishedResult("DeepSeek-R1-Distill-Qwen-1.5B", 58.3, "pass@1", _BLOG, _NOTE),
    ),
)
