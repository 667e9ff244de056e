"""Settings of the preparation: every field, with its default and its meaning; :mod:`.settings`
reads them.

Invariant: ``prepare-full.yaml`` shows the same fields.
"""

from dataclasses import dataclass, field
from typing import Any

from verl_pipeline.evaluation.config import EngineConfig, GraderConfig


@dataclass
class SourceConfig:
    """What is taken of one source.

    Attributes:
        file: data file to read instead of looking for the source's own.
        start, end: rows of ``start`` <= date < ``end`` only (ISO dates), of a source whose rows
            have a date.
        limit: the first so many rows; None: all.
        without_solution: for rows without an official solution; None: as
            ``verify.without_solution``.
    """

    file: str | None = None
    start: str | None = None
    end: str | None = None
    limit: int | None = None
    without_solution: str | None = None


@dataclass
class PromptConfig:
    """What a model is shown.

    Attributes:
        style: ``instructed``: LiveCodeBench's words around the problem, with the names that its
            tests call; ``released``: the bare problem, as in DeepCoder's released data
            (LiveCodeBench's problems in its words).
        system: system message in front; None: none, and the chat template may add its own.
    """

    style: str = "instructed"
    system: str | None = None


@dataclass
class TestsConfig:
    """How many tests a problem must have.

    Attributes:
        min: tests, or asserts where tests are Python; fewer invite answers that are printed from
            memory (5: section "Dataset" of the DeepCoder blog post).
    """

    min: int = 5


@dataclass
class LengthConfig:
    """How long a prompt may be.

    Attributes:
        max_tokens: of the prompt with its chat template, by the tokenizer of ``model``; longer ones
            are removed, not cut (2048: data.max_prompt_length of DeepCoder's scripts).
    """

    max_tokens: int = 2048


@dataclass
class ContaminationConfig:
    """What must not be trained on.

    Attributes:
        tasks: names of :mod:`verl_pipeline.evaluation.tasks`.
        options: of tasks, by the task's name.
        missing: for a task whose data is nowhere to be found: ``refuse``, or ``warn`` and go on
            without.
        threshold: Jaccard similarity of shingles from which two texts are one problem.
        agreeing: the same, where at least half of the tests compared are the same.
        gram: words in a row; of GPT-3's length (Brown et al. 2020, appendix C).
        share: of a task's problem, in ``gram``-grams, from which a row contains it.
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
    """Official solutions, run in the sandbox on all tests with strict comparison.

    Attributes:
        solutions: at most so many of a problem, the first that are Python 3.
        on_disagreement: one is accepted, another gives a wrong answer, or the source declares a
            checker: ``drop``, or ``mark`` the row as one of several right answers.
        without_solution: ``drop`` rows without an official solution, or ``keep`` them as not
            verified.
    """

    solutions: int = 3
    on_disagreement: str = "drop"
    without_solution: str = "drop"


@dataclass
class NearConfig:
    """Duplicates within and across sources.

    Attributes:
        words: in a shingle.
        permutations: of MinHash.
        threshold: Jaccard similarity of shingles from which two texts are one problem, unless their
            tests contradict.
        agreeing: the same, where at least half of the tests compared are the same.
    """

    words: int = 5
    permutations: int = 128
    threshold: float = 0.8
    agreeing: float = 0.5


@dataclass
class DifficultyConfig:
    """Problems that a model solves sometimes.

    Attributes:
        mode: ``measure`` with samples of a model, ``given`` in ``rates``, or ``none``.
        rates: JSON lines of ``{"id", "rate"}``, measured elsewhere.
        model: that answers; None: ``model``.
        k: samples a problem; rates are multiples of 1/k.
        max_tokens, temperature, top_p: of a sample.
        low, high: kept is ``low`` < rate < ``high``.
        engine: what generates; as in an evaluation.
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
    """A part that is not trained on.

    Attributes:
        heldout: problems of it, chosen by the hash of ``seed`` and id.
    """

    heldout: int = 0


@dataclass
class PrepareConfig:
    """A preparation.

    Attributes:
        sources: by name (:data:`recipes.deepcoder.data.data_sources.SOURCES`); of two twins, that of the
            earlier source stays.
        model: whose tokenizer counts prompt tokens: a folder, a name of the hub, or ``quickstart``.
        output: folder of the parquet files and the report.
        work: folder of what the stages keep; None: ``work`` in ``output``.
        data: folder of local data files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be fetched from the hub.
        seed: of everything that is drawn.
        grader: isolation of the programs that are run.
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
