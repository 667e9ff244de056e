"""Settings of the preparation: every field with its default and its meaning.

:mod:`verl_pipeline.recipes.deepcoder.data.preparation_loader` reads and checks them.

Invariants:
* ``config/prepare-full.yaml`` shows the same fields.
* Field names are part of the cache keys: a renamed field invalidates every cached stage.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from verl_pipeline.evaluation.eval_settings import EngineConfig, GraderConfig


@dataclass
class SourceConfig:
    """Which rows of one data source are read.

    Attributes:
        file: data file to read instead of the files that the source defines.
        start, end: read only rows with ``start`` <= date < ``end`` (ISO dates); only for sources
            whose rows have dates.
        limit: read only the first ``limit`` rows; None: all.
        without_solution: what happens to rows without an official solution; None: the value of
            ``verify.without_solution``.
    """

    file: str | None = None
    start: str | None = None
    end: str | None = None
    limit: int | None = None
    without_solution: str | None = None


@dataclass
class PromptConfig:
    """How a problem is presented to the model.

    Attributes:
        style: ``instructed``: LiveCodeBench's instructions around the problem, with the names that
            the tests call; ``released``: the bare problem, as in DeepCoder's released data
            (problems of LiveCodeBench keep its instructions).
        system: system message of the conversation; None: no message, so the chat template may add
            its own.
    """

    style: str = "instructed"
    system: str | None = None


@dataclass
class TestsConfig:
    """How many tests a problem must have.

    Attributes:
        min: minimum number of tests, or of assert statements if the tests are Python code. With
            fewer, a program can print memorized answers (5: section "Dataset" of the DeepCoder
            blog post).
    """

    min: int = 5


@dataclass
class LengthConfig:
    """How long a prompt may be.

    Attributes:
        max_tokens: maximum length of the prompt, chat template included, in tokens of the tokenizer
            of ``model``. Longer prompts are removed, not cut (2048: data.max_prompt_length in
            DeepCoder's scripts).
    """

    max_tokens: int = 2048


@dataclass
class ContaminationConfig:
    """Which evaluation problems must not be in the training data.

    Attributes:
        tasks: names of :mod:`verl_pipeline.evaluation.tasks`.
        options: options of tasks, by task name.
        missing: what happens if the data of a task cannot be found: ``refuse``, or ``warn`` and
            continue without the task.
        threshold: two texts are one problem from this Jaccard similarity of their shingles on.
        agreeing: the same threshold for texts of which at least half of the compared tests are the
            same.
        gram: length of an n-gram in words (13: GPT-3, Brown et al. 2020, appendix C).
        share: a row contains a problem if it holds at least this share of the problem's n-grams.
    """

    tasks: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    missing: str = "refuse"
    threshold: float = 0.7
    agreeing: float = 0.4
    gram: int = 13
    share: float = 0.5


@dataclass
class VerifyConfig:
    """How official solutions are verified: in the sandbox, on all tests, with strict comparison.

    Attributes:
        solutions: run at most this many solutions per problem, the first ones that are Python 3.
        on_disagreement: what happens if one solution is accepted and another gives a wrong answer,
            or if the source declares a checker: ``drop`` the row, or ``mark`` it as having several
            right answers.
        without_solution: ``drop`` rows without an official solution, or ``keep`` them as not
            verified.
    """

    solutions: int = 3
    on_disagreement: str = "drop"
    without_solution: str = "drop"


@dataclass
class NearConfig:
    """How duplicates within and across data sources are found.

    Attributes:
        words: length of a shingle in words.
        permutations: number of MinHash permutations.
        threshold: two texts are one problem from this Jaccard similarity of their shingles on,
            unless their tests contradict each other.
        agreeing: the same threshold for texts of which at least half of the compared tests are the
            same.
    """

    words: int = 5
    permutations: int = 128
    threshold: float = 0.8
    agreeing: float = 0.5


@dataclass
class DifficultyConfig:
    """Which pass rates a problem may have.

    Attributes:
        mode: ``measure`` pass rates by sampling a model, take the ones ``given`` in ``rates``, or
            ``none``.
        rates: file of JSON lines ``{"id", "rate"}`` that were measured elsewhere.
        model: the model to sample; None: the value of ``model``.
        k: samples per problem; pass rates are multiples of 1/k.
        max_tokens, temperature, top_p: sampling parameters.
        low, high: keep problems with ``low`` < pass rate < ``high``.
        engine: the inference engine, configured as in an evaluation.
    """

    mode: str = "none"
    rates: str | None = None
    model: str | None = None
    k: int = 8
    max_tokens: int = 16384
    temperature: float = 0.6
    top_p: float = 1.0
    low: float = 0.0
    high: float = 1.0
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class SplitConfig:
    """How many problems are held out from training.

    Attributes:
        heldout: number of held-out problems, chosen by the hash of ``seed`` and id.
    """

    heldout: int = 0


@dataclass
class PrepareConfig:
    """All settings of a preparation.

    Attributes:
        sources: settings of the data sources, by name
            (:data:`.data_sources.SOURCES`). Of duplicates, the one of the earlier source stays.
        model: the model whose tokenizer counts prompt tokens: a folder, a name on the hub, or
            ``quickstart``.
        output: folder of the parquet files and the report.
        work: folder of the stage cache; None: ``work`` in ``output``.
        data: folder of local data files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be downloaded from the hub.
        seed: seed of the split and of the samples.
        grader: how the programs that are run are isolated.
    """

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    model: str = ""
    output: str = "outputs/deepcoder-data"
    work: str | None = None
    data: str | None = None
    hub: bool = True
    seed: int = 0
    prompt: PromptConfig = field(default_factory=PromptConfig)
    tests: TestsConfig = field(default_factory=TestsConfig)
    length: LengthConfig = field(default_factory=LengthConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    near: NearConfig = field(default_factory=NearConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    grader: GraderConfig = field(default_factory=GraderConfig)


def select_result_settings(config: PrepareConfig) -> dict[str, Any]:
    """Return the settings that decide the result, without those of location and speed."""
    settings = asdict(config)
    for name in ("output", "work", "data", "hub", "grader"):
        del settings[name]
    for source in settings["sources"].values():
        del source["file"]
    for name in (
        "concurrency",
        "timeout_s",
        "tries",
        "threads",
        "tensor_parallel_size",
        "gpu_memory_utilization",
    ):
        del settings["difficulty"]["engine"][name]
    return settings
