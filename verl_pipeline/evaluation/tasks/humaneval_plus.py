"""HumanEval+ (Liu et al. 2023): HumanEval's 164 functions with some eighty times as many tests."""

from verl_pipeline.evaluation.data import Finder, Hub
from verl_pipeline.evaluation.task import Loaded, Published, Sampling, Task
from verl_pipeline.evaluation.tasks._reading import read_all
from verl_pipeline.evaluation.tasks.humaneval import item_of

_BLOG = "DeepCoder blog post, April 2025"
_NOTE = "number of samples not stated; rLLM's grader, which a program can end with sys.exit(0)"


def load(finder: Finder) -> Loaded:
    """All problems, with ``test`` as the hub's form has it (EvalPlus's own release file lacks it)."""
    rows, origin = finder.find(
        ["humanevalplus", "HumanEvalPlus", "humaneval_plus"],
        hub=Hub("evalplus/humanevalplus", ("data/*.parquet",)),
    )
    return read_all(rows, origin, lambda _number, row: item_of(row, "humanevalplus"))


TASK = Task(
    name="humaneval_plus",
    title="HumanEval+",
    load=load,
    sampling=Sampling(n=8, max_tokens=32768),
    published=(
        Published("DeepCoder-14B-Preview", 92.6, "pass@1", _BLOG, _NOTE),
        Published("DeepSeek-R1-Distill-Qwen-14B", 92.0, "pass@1", _BLOG, _NOTE),
        Published("o3-mini-2025-1-31 (low)", 92.6, "pass@1", _BLOG, _NOTE),
        Published("o1-2024-12-17 (low)", 90.8, "pass@1", _BLOG, _NOTE),
        Published("DeepCoder-1.5B-Preview", 73.0, "pass@1", _BLOG, _NOTE),
        Published("DeepSeek-R1-Distill-Qwen-1.5B", 58.3, "pass@1", _BLOG, _NOTE),
    ),
)
