"""The data sources: where each one is found, and in which formats its rows come.

A row has the first format of its source whose required fields it has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from verl_pipeline.evaluation.data import HubFiles, PackageFile, Row
from verl_pipeline.recipes.deepcoder.data import rllm_formats, row_formats
from verl_pipeline.recipes.deepcoder.data.row_formats import RawProblem, read_generated


@dataclass(frozen=True)
class RowFormat:
    """One format of a source's rows: the fields it must have, and the function that reads it."""

    required_fields: frozenset[str]
    read_row: Callable[[Row], RawProblem]


@dataclass(frozen=True)
class DataSource:
    """A data source.

    Attributes:
        reader: reader of its tests, a key of :data:`verl_pipeline.grading.readers.READERS`.
        row_formats: formats of its rows; the hub's comes first.
        file_stems: names of local files without suffix; the first that exists is read.
        part_stems: names of local files without suffix that together are the data set.
        hub: its files on the hub.
        package: the file of an installed package that holds it.
        has_dates: whether its rows have dates.
    """

    reader: str
    row_formats: tuple[RowFormat, ...]
    file_stems: tuple[str, ...]
    part_stems: tuple[str, ...] = ()
    hub: HubFiles | None = None
    package: PackageFile | None = None
    has_dates: bool = False


def _make_format(required_fields: str, read_row: Callable[[Row], RawProblem]) -> RowFormat:
    return RowFormat(frozenset(required_fields.split()), read_row)


_RLLM = _make_format("problem tests", rllm_formats.read_rllm)
# APPS and TACO store their tests as `input_output`.
_TACO_FIELDS = "question input_output solutions"

SOURCES: Mapping[str, DataSource] = {
    "taco": DataSource(
        "taco",
        (_make_format(_TACO_FIELDS, row_formats.read_taco), _RLLM),
        ("taco", "taco_verified", "TACO-verified"),
        hub=HubFiles("likaixin/TACO-verified", ("data/train-*.parquet",)),
    ),
    "primeintellect": DataSource(
        "primeintellect",
        (
            _make_format(
                "prompt verification_info gold_standard_solution", row_formats.read_primeintellect
            ),
            _make_format("problem tests", rllm_formats.read_rllm_primeintellect),
        ),
        ("primeintellect", "verifiable-coding-problems", "synthetic-1"),
        hub=HubFiles("PrimeIntellect/verifiable-coding-problems", ("data/train-*.parquet",)),
    ),
    "livecodebench": DataSource(
        "livecodebench",
        (
            _make_format(
                "question_id question_content contest_date public_test_cases private_test_cases",
                row_formats.read_livecodebench,
            ),
        ),
        ("livecodebench_v5", "livecodebench"),
        # Release v5. Each release adds one file to the release before.
        part_stems=tuple(f"livecodebench/test{number}" for number in ("", 2, 3, 4, 5)),
        hub=HubFiles(
            "livecodebench/code_generation_lite",
            tuple(f"test{number}.jsonl" for number in ("", 2, 3, 4, 5)),
        ),
        has_dates=True,
    ),
    "codeforces": DataSource(
        "codeforces",
        (_make_format("id description official_tests", row_formats.read_codeforces), _RLLM),
        ("codeforces_train", "codeforces", "codeelo"),
        hub=HubFiles("open-r1/codeforces", ("data/train-*.parquet",)),
    ),
    "apps": DataSource(
        "apps",
        (_make_format(_TACO_FIELDS, row_formats.read_taco), _RLLM),
        ("apps_train", "apps"),
        hub=HubFiles("codeparrot/apps", ("train.jsonl",)),
    ),
    "code_contests": DataSource(
        "code_contests",
        (
            _make_format(
                "name description public_tests private_tests generated_tests solutions",
                row_formats.read_code_contests,
            ),
            _RLLM,
        ),
        ("code_contests_train", "code_contests", "code_contests_test"),
        hub=HubFiles("deepmind/code_contests", ("data/train-*.parquet",)),
    ),
    "leetcode": DataSource(
        "leetcode",
        (
            _make_format("task_id test entry_point completion", row_formats.read_leetcode),
            _make_format("problem tests", rllm_formats.read_rllm_leetcode),
        ),
        ("leetcode_train", "leetcode", "leetcode_test"),
        hub=HubFiles("newfacade/LeetCodeDataset", ("LeetCodeDataset*train*.jsonl",)),
    ),
    "kodcode": DataSource(
        "kodcode",
        (
            _make_format("question solution test", row_formats.read_kodcode),
            _make_format("question solution test_code", row_formats.read_kodcode),
            _RLLM,
        ),
        ("kodcode_train", "kodcode", "KodCode-V1"),
        hub=HubFiles("KodCode/KodCode-V1", ("data/train-*.parquet",)),
    ),
    "mbpp": DataSource(
        "mbpp",
        (_make_format("task_id test_list code", row_formats.read_mbpp),),
        ("mbpp_sanitized", "sanitized-mbpp", "mbpp"),
        hub=HubFiles("google-research-datasets/mbpp", ("sanitized/*.parquet",)),
    ),
    # Files that verl_pipeline.recipes.deepcoder.generate writes, one a method.
    **{
        name: DataSource(
            "taco",
            (_make_format("id question tests solutions generation", read_generated),),
            (f"generated_{name}",),
        )
        for name in ("codeio", "families", "model_made", "strengthened")
    },
    "quickstart": DataSource(
        "taco",
        (
            _make_format(
                "name prompt entry_point reference tests difficulty", row_formats.read_quickstart
            ),
        ),
        ("quickstart",),
        package=PackageFile("verl-pipeline", "verl_pipeline.quickstart", "problems.jsonl"),
    ),
}
