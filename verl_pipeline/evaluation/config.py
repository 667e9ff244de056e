"""Settings of an evaluation, as a file (``--config``) or as ``key=value`` behind the command.

Invariants:
* Every field is here, with its default; an unknown one is refused by name.
* None in ``sampling`` means: as the task has it.
* A contradiction is found here, before data or models are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.evaluation.errors import Refused


@dataclass
class SamplingConfig:
    """How samples are drawn; each field None: the task's own.

    Attributes:
        n: samples a problem.
        temperature, top_p, top_k: as in vLLM.
        max_tokens: longest response.
        seed: of the whole evaluation.
    """

    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass
class EngineConfig:
    """What generates.

    Attributes:
        kind: ``vllm``, offline, in this process; ``server``: any OpenAI-compatible one.
        url: of the server, up to and with ``/v1``.
        api_key_variable: environment variable that holds the server's key.
        concurrency: requests under way at a time.
        timeout_s: longest time for one request to the server.
        tries: of one request, before it counts as failed.
        dtype: of vLLM; ``auto`` is what the model was saved in, on CPUs without native bf16
            float32.
        max_model_len: of vLLM; None: the longest prompt and ``sampling.max_tokens`` together.
        tensor_parallel_size, gpu_memory_utilization: of vLLM.
        threads: processor threads, on CPUs; None: one for each core.
        chat_template: file with a Jinja chat template, for a model without one.
        chat_template_kwargs: arguments of the template, e.g. ``{enable_thinking: false}``.
        rope_parameters: position scaling, to evaluate beyond the model's positions, e.g.
            ``{rope_type: yarn, factor: 2.0, original_max_position_embeddings: 32768}``.
        trained_length: longest response of the training, in tokens, if known; stated beside lengths
            beyond it.
    """

    kind: str = "vllm"
    url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 256
    timeout_s: float = 3600.0
    tries: int = 3
    dtype: str = "auto"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    threads: int | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    rope_parameters: dict[str, Any] | None = None
    trained_length: int | None = None


@dataclass
class GraderConfig:
    """How answers are graded.

    Attributes:
        tier: isolation of programs: ``namespaces``; by name, ``rlimits`` or ``remote``.
        url: of a SandboxFusion server, for ``remote``.
        workers: programs at a time; None: one for each processor.
    """

    tier: str = "namespaces"
    url: str | None = None
    workers: int | None = None


@dataclass
class RefineConfig:
    """A second round for problems whose samples disagree (:mod:`verl_pipeline.evaluation.refine`).

    Attributes:
        n: samples of a second round for a problem whose samples disagree; 0: none.
        agreement: a problem whose leading answer has less than this share of the votes' weight is
            refined.
        confidence: so is one whose samples have a mean confidence (geometric mean of a sample's
            token probabilities) below this; 0: none.
    """

    n: int = 0
    agreement: float = 0.5
    confidence: float = 0.0


@dataclass
class EvalConfig:
    """An evaluation.

    Attributes:
        model: folder or name on the hub of a model in Hugging Face's format; ``canonical`` or
            ``empty`` for the data's own solutions and for no answers, which must score 100 and 0 %;
            a JSONL file of answers of another engine.
        tasks: names (:mod:`verl_pipeline.evaluation.tasks`).
        output: folder of samples, verdicts, results and report.
        data: folder of local data files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be fetched from the hub.
        style: ``chat``: the model answers from the start; ``prefill``: its message begins as the
            task says, for models that do not think.
        system: system prompt in front of every conversation; None: none.
        purpose: ``report``, or ``choose`` between checkpoints, for which a test split is marked.
        limit: the first so many problems of each task only; None: all.
        train_data: parquet files in verl's schema that the model was trained on: problems that are
            in them are named.
        scorer: best-of-n takes the sample with the highest ``mean_logprob``, the ``shortest``, or
            the highest value of ``package.module.function`` of the sample's row.
        options: of tasks, by the task's name.
    """

    model: str = ""
    tasks: list[str] = field(default_factory=list)
    output: str = "outputs/eval"
    data: str | None = None
    hub: bool = True
    style: str = "chat"
    system: str | None = None
    purpose: str = "report"
    limit: int | None = None
    train_data: list[str] = field(default_factory=list)
    scorer: str = "mean_logprob"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    grader: GraderConfig = field(default_factory=GraderConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    options: dict[str, Any] = field(default_factory=dict)


def given_answers(model: str) -> bool:
    """Whether ``model`` stands for answers that are there already."""
    return model in ("canonical", "empty") or model.endswith(".jsonl")


class BadSetting(Refused):
    """A setting that cannot be; the message names it and the fix."""


def load_config(
    file: str | None, overrides: list[str], given: Mapping[str, Any] | None = None
) -> EvalConfig:
    """Defaults, then the file, then the overrides (``engine.kind=server``), then what is ``given``
    as it is.

    Raises:
        BadSetting: an unknown field, a value of the wrong type, or a contradiction.
    """
    try:
        layers = [OmegaConf.load(file)] if file else []
        merged = OmegaConf.merge(
            OmegaConf.structured(EvalConfig),
            *layers,
            OmegaConf.from_dotlist(overrides),
            dict(given or {}),
        )
        config = OmegaConf.to_object(merged)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"--config {file}: {error}") from error
    except OmegaConfBaseException as error:
        raise BadSetting(f"{error.full_key or 'settings'}: {str(error).splitlines()[0]}") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
    ) as error:  # OmegaConf's own for what is no mapping are of the last two
        raise BadSetting(f"settings: {' '.join(str(error).split())}") from error
    assert isinstance(config, EvalConfig)
    _check(config)
    return config


def _check(config: EvalConfig) -> None:
    one_of = {
        "engine.kind": (config.engine.kind, ("vllm", "server")),
        "style": (config.style, ("chat", "prefill")),
        "purpose": (config.purpose, ("report", "choose")),
        "grader.tier": (config.grader.tier, ("namespaces", "rlimits", "remote")),
    }
    for name, (value, allowed) in one_of.items():
        if value not in allowed:
            raise BadSetting(f"{name}={value!r}: must be one of {', '.join(allowed)}")
    if not config.model:
        raise BadSetting(
            "model: name a folder, a model of the hub, 'canonical', 'empty', or a JSONL file of "
            "answers"
        )
    if not config.tasks:
        raise BadSetting("tasks: name at least one (verl-pipeline eval --list)")
    if (config.engine.kind == "server") != (config.engine.url is not None):
        raise BadSetting("engine.url: needed with engine.kind=server, and only there")
    if (config.grader.tier == "remote") != (config.grader.url is not None):
        raise BadSetting("grader.url: needed with grader.tier=remote, and only there")
    if config.engine.kind == "server" and config.engine.rope_parameters:
        raise BadSetting("engine.rope_parameters: a server scales positions by its own settings")
    rope = config.engine.rope_parameters
    if rope is not None and not (
        {"rope_type", "factor"} <= rope.keys() and isinstance(rope["factor"], int | float)
    ):
        raise BadSetting(
            f"engine.rope_parameters={rope}: rope_type (as in yarn) and factor (a number) are "
            "needed"
        )
    least = {
        "engine.concurrency": config.engine.concurrency,
        "engine.tries": config.engine.tries,
        "engine.timeout_s": config.engine.timeout_s,
        "grader.workers": config.grader.workers,
        "engine.threads": config.engine.threads,
        "limit": config.limit,
    }
    for name, number in least.items():
        if number is not None and number < 1:
            raise BadSetting(f"{name}={number}: must be at least 1")
    if len(set(config.tasks)) < len(config.tasks):
        raise BadSetting(f"tasks={','.join(config.tasks)}: one is named twice")
    for name, options in config.options.items():
        if not isinstance(options, dict):
            raise BadSetting(f"options.{name}={options!r}: option=value pairs are needed")
    if config.refine.n and given_answers(config.model):
        raise BadSetting(
            f"refine.n: a second round needs a model that can be asked, not {config.model}"
        )
    if (
        not 0 < config.refine.agreement <= 1
        or not 0 <= config.refine.confidence < 1
        or config.refine.n < 0
    ):
        raise BadSetting("refine: agreement must be in (0, 1], confidence in [0, 1), n at least 0")
