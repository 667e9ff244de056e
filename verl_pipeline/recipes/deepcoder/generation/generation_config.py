"""Settings of the generation: every field with its default and its meaning.

:mod:`.generation_loader` reads and checks them. Settings that begin with ``prepare.`` are those of
:mod:`verl_pipeline.recipes.deepcoder.data.preparation_config`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from verl_pipeline.evaluation.eval_settings import EngineConfig, GraderConfig
from verl_pipeline.recipes.deepcoder.data.preparation_config import SourceConfig


@dataclass
class TestsConfig:
    """Which inputs become tests.

    Attributes:
        draws: inputs that are drawn from a generator.
        keep: tests that a problem has at most.
        min: tests that a problem has at least. A table of few entries could be learned by heart.
        distinct: distinct outputs that they have at least: with fewer, a program can guess.
        repeats: tests with the same output that are kept.
        characters: longest input, and longest output, as JSON.
    """

    draws: int = 48
    keep: int = 24
    min: int = 12
    distinct: int = 4
    repeats: int = 4
    characters: int = 4000


@dataclass
class TimeConfig:
    """How long generated programs may run, in CPU seconds.

    Attributes:
        generator_s: of a generator, for all its draws.
        reference_s: of a reference, for all calls of a function together, or for one input on
            standard input. The reward allows 12 s for each test, so right programs may be slower.
        mutant_s: the same of a mutant; at least twice ``reference_s``, or mutants would be rejected
            for slowness.
    """

    generator_s: float = 5.0
    reference_s: float = 0.5
    mutant_s: float = 1.0


@dataclass
class MutationConfig:
    """How the strength of tests is measured.

    Attributes:
        mutants: programs with one fault that are made of a reference, at most.
        min_score: share of them that the tests must reject. Some mutants are no fault (they do what
            the reference does), so that 1 cannot be asked for.
    """

    mutants: int = 16
    min_score: float = 0.5


@dataclass
class CodeioConfig:
    """Problems from the CodeI/O corpus in the package reasoning-gym.

    Attributes:
        file: the corpus; None: ``codeio.jsonl.gz`` in the data folder or the installed package.
        limit: rows that are read; None: all.
        form: ``call`` (tests call a function), ``stdin``, or ``mixed``: a quarter reads standard
            input, by the hash of the program.
    """

    file: str | None = None
    limit: int | None = None
    form: str = "mixed"


@dataclass
class FamiliesConfig:
    """Problems from the families of reasoning-gym's generators that this recipe describes.

    Attributes:
        names: families; empty: all.
        folder: the folder of the package ``reasoning_gym``, if it is not installed.
    """

    folder: str | None = None
    names: list[str] = field(default_factory=list)


@dataclass
class ModelConfig:
    """Problems that a model writes.

    Attributes:
        name: the model: a name on the server, or a folder for a local vLLM.
        problems: how many are asked for.
        ways: ``evolve`` (make a seed harder), ``compose`` (join two seeds), ``translate`` (tell a
            seed anew, for standard input); they take turns.
        seeds: data sources of the seeds, as the preparation's ``sources``.
        solvers: independent solutions that are asked for.
        agree: how many of them must answer all inputs as the reference does.
        solver: the model that writes them; empty: ``name``.
        max_tokens, temperature, top_p: sampling parameters.
        rounds: how often a call asks again for answers that the server failed to give.
        engine: the inference engine, configured as in an evaluation.
    """

    name: str = ""
    problems: int = 100
    ways: list[str] = field(default_factory=lambda: ["evolve", "compose", "translate"])
    seeds: dict[str, SourceConfig] = field(default_factory=lambda: {"quickstart": SourceConfig()})
    solvers: int = 4
    agree: int = 2
    solver: str = ""
    max_tokens: int = 4096
    temperature: float = 0.8
    top_p: float = 1.0
    rounds: int = 3
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(kind="server", tries=6))


@dataclass
class StrengthenConfig:
    """More tests for problems that have some.

    Attributes:
        sources: data sources of the problems, as the preparation's ``sources``.
        generator: where inputs come from: ``derived`` from the types and ranges of the known
            inputs, or written by the ``model``.
        draws: inputs per problem.
        keep: tests that are added at most.
        opinions: right programs (official solutions, and samples that pass the known tests) that
            must agree on an output. With 1, an input that the statement excludes can become a test.
        mutants: mutants of the official solutions, at most.
        samples: JSONL file of a model's samples, ``{"id", "program"}`` or ``{"id", "response"}``.
    """

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    generator: str = "derived"
    draws: int = 64
    keep: int = 16
    opinions: int = 2
    mutants: int = 32
    samples: str | None = None


@dataclass
class GenerateConfig:
    """All settings of a generation.

    Attributes:
        methods: ``codeio``, ``families``, ``model``, ``strengthen``; of duplicates, the problem of
            the earlier method stays.
        output: folder of the parquet files, the rows and the report.
        work: folder of stored results; None: ``work`` in ``output``.
        data: folder of local data files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be downloaded from the hub.
        seed: of the draws, the mutants, the samples and the split.
        grader: how the programs that are run are isolated.
    """

    methods: list[str] = field(default_factory=lambda: ["codeio", "families"])
    output: str = "outputs/deepcoder-generated"
    work: str | None = None
    data: str | None = None
    hub: bool = True
    seed: int = 0
    tests: TestsConfig = field(default_factory=TestsConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    mutation: MutationConfig = field(default_factory=MutationConfig)
    codeio: CodeioConfig = field(default_factory=CodeioConfig)
    families: FamiliesConfig = field(default_factory=FamiliesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    strengthen: StrengthenConfig = field(default_factory=StrengthenConfig)
    grader: GraderConfig = field(default_factory=GraderConfig)


def select_building_settings(config: GenerateConfig) -> dict[str, Any]:
    """Return the settings that decide what becomes of a candidate."""
    return {
        "seed": config.seed,
        "tests": asdict(config.tests),
        "time": asdict(config.time),
        "mutation": asdict(config.mutation),
    }
