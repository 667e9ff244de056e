"""The sources: where each is found, and in which shapes its rows come.

A shape is known by the fields it requires; a row is read by the first shape of its source whose
fields it has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recipes.deepcoder.data import row_formats as shapes
from recipes.deepcoder.data.row_formats import Raw
from verl_pipeline.evaluation.data import Hub, Package, Row


@dataclass(frozen=True)
class Shape:
    """One form of a source's rows: the fields it must have, and how they are read."""

    required: frozenset[str]
    read: Callable[[Row], Raw]


@dataclass(frozen=True)
class Source:
    """A source.

    Attributes:
        reader: of its tests, key of :data:`verl_pipeline.grading.readers.READERS`.
        shapes: the hub's first.
        stems: names of local files, without suffix.
        parts: the same, of files that make the data together.
        dated: rows have a date.
    """

    reader: str
    shapes: tuple[Shape, ...]
    stems: tuple[str, ...]
    parts: tuple[str, ...] = ()
    hub: Hub | None = None
    package: Package | None = None
    dated: bool = False


def _shape(required: str, read: Callable[[Row], Raw]) -> Shape:
    return Shape(frozenset(required.split()), read)


_RLLM = _shape("problem tests", shapes.rllm)
_PAIRS = "question input_output solutions"

SOURCES: Mapping[str, Source] = {
    "taco": Source(
        "taco",
        (_shape(_PAIRS, shapes.taco), _RLLM),
        ("taco", "taco_verified", "TACO-verified"),
        hub=Hub("likaixin/TACO-verified", ("data/train-*.parquet",)),
    ),
    "primeintellect": Source(
        "primeintellect",
        (
            _shape("prompt verification_info gold_standard_solution", shapes.primeintellect),
            _shape("problem tests", shapes.rllm_primeintellect),
        ),
        ("primeintellect", "verifiable-coding-problems", "synthetic-1"),
        hub=Hub("PrimeIntellect/verifiable-coding-problems", ("data/train-*.parquet",)),
    ),
    "livecodebench": Source(
        "livecodebench",
        (
            _shape(
                "question_id question_content contest_date public_test_cases private_test_cases",
                shapes.livecodebench,
            ),
        ),
        ("livecodebench_v5", "livecodebench"),
        # Release v5; each release is the one before and a file more.
        parts=tuple(f"livecodebench/test{number}" for number in ("", 2, 3, 4, 5)),
        hub=Hub(
            "livecodebench/code_generation_lite",
            tuple(f"test{number}.jsonl" for number in ("", 2, 3, 4, 5)),
        ),
        dated=True,
    ),
    "codeforces": Source(
        "codeforces",
        (_shape("id description official_tests", shapes.codeforces), _RLLM),
        ("codeforces_train", "codeforces", "codeelo"),
        hub=Hub("open-r1/codeforces", ("data/train-*.parquet",)),
    ),
    "apps": Source(
        "apps",
        (_shape(_PAIRS, shapes.taco), _RLLM),
        ("apps_train", "apps"),
        hub=Hub("codeparrot/apps", ("train.jsonl",)),
    ),
    "code_contests": Source(
        "code_contests",
        (
            _shape(
                "name description public_tests private_tests generated_tests solutions",
                shapes.code_contests,
            ),
            _RLLM,
        ),
        ("code_contests_train", "code_contests", "code_contests_test"),
        hub=Hub("deepmind/code_contests", ("data/train-*.parquet",)),
    ),
    "leetcode": Source(
        "leetcode",
        (
            _shape("task_id test entry_point completion", shapes.leetcode),
            _shape("problem tests", shapes.rllm_leetcode),
        ),
        ("leetcode_train", "leetcode", "leetcode_test"),
        hub=Hub("newfacade/LeetCodeDataset", ("LeetCodeDataset*train*.jsonl",)),
    ),
    "kodcode": Source(
        "kodcode",
        (
            _shape("question solution test", shapes.kodcode),
            _shape("question solution test_code", shapes.kodcode),
            _RLLM,
        ),
        ("kodcode_train", "kodcode", "KodCode-V1"),
        hub=Hub("KodCode/KodCode-V1", ("data/train-*.parquet",)),
    ),
    "mbpp": Source(
        "mbpp",
        (_shape("task_id test_list code", shapes.mbpp),),
        ("mbpp_sanitized", "sanitized-mbpp", "mbpp"),
        hub=Hub("google-research-datasets/mbpp", ("sanitized/*.parquet",)),
    ),
    "quickstart": Source(
        "taco",
        (_shape("name prompt entry_point reference tests difficulty", shapes.quickstart),),
        ("quickstart",),
        package=Package("verl-pipeline", "verl_pipeline.quickstart", "problems.jsonl"),
    ),
}
