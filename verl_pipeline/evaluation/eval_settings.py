"""Settings of an evaluation, from a YAML file (``--config``) and ``key=value`` arguments.

Invariants:
* Every setting is a field here, with its default; an unknown key is refused by name.
* None in ``sampling`` stands for the task's own value.
* Wrong values and contradictions are found by :mod:`settings_loader`, before data or models are
  loaded.
"""

from dataclasses import dataclass, field
from typing import Any

from verl_pipeline.errors import UserError

# Request parameters that shape the samples: without leave none is left out of a request, unless
# its value is the interface's default.
DROPPABLE_PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "chat_template_kwargs",
    "continue_final_message",
)


@dataclass
class SamplingConfig:
    """Sampling parameters; None: the task's own value.

    Attributes:
        n: samples per problem.
        temperature, top_p, top_k: as in vLLM.
        max_tokens: maximum response length.
        seed: seed of the whole evaluation.
    """

    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass
class EngineConfig:
    """The engine that generates responses.

    Attributes:
        kind: ``vllm``: offline, in this process; ``server``: any OpenAI-compatible server.
        url: URL of the server, including ``/v1``.
        api_key_variable: environment variable that holds the server's API key.
        concurrency: maximum number of requests in flight.
        timeout_s: timeout of one request to the server, in seconds.
        tries: attempts per request before it counts as failed; waiting for a rate limit, for at
            most ``timeout_s`` in all, is no attempt.
        may_drop: parameters that shape the samples (:data:`DROPPABLE_PARAMETERS`) and may be left
            out if the server refuses them, e.g. ``[temperature]``.
        dtype: vLLM's dtype; ``auto``: the dtype in which the model was saved, but float32 on CPUs
            without native bf16.
        max_model_len: vLLM's maximum sequence length; None: the longest prompt plus
            ``sampling.max_tokens``.
        tensor_parallel_size, gpu_memory_utilization: as in vLLM.
        threads: processor threads, on CPUs only; None: one per core.
        chat_template: file with a Jinja chat template, for a model without one.
        chat_template_kwargs: arguments of the chat template, e.g. ``{enable_thinking: false}``.
        rope_parameters: RoPE scaling, to evaluate beyond the model's positions, e.g.
            ``{rope_type: yarn, factor: 2.0, original_max_position_embeddings: 32768}``.
        trained_length: maximum response length in training, in tokens, if known; a longer
            ``sampling.max_tokens`` gives a caveat.
        top_logprobs: record each token's confidence: the negative mean log-prob of so many
            likeliest tokens, as DeepConf; 0: the log-prob of the sampled token; None: not recorded.
    """

    kind: str = "vllm"
    url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 256
    timeout_s: float = 3600.0
    tries: int = 3
    may_drop: list[str] = field(default_factory=list)
    dtype: str = "auto"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    threads: int | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    rope_parameters: dict[str, Any] | None = None
    trained_length: int | None = None
    top_logprobs: int | None = None


@dataclass
class GraderConfig:
    """The grader of programs.

    Attributes:
        tier: isolation of programs: ``namespaces``, ``rlimits`` (limits only) or ``remote``; there
            is no automatic fallback.
        url: URL of a SandboxFusion server, for ``remote``.
        workers: programs that run at a time; None: one per processor.
    """

    tier: str = "namespaces"
    url: str | None = None
    workers: int | None = None


@dataclass
class ResponseGraderConfig(GraderConfig):
    """The grader of responses: of programs, answers, and by a training's own reward.

    Attributes:
        reward_s: longest time of one call of a training's reward function, in seconds; as
            ``deadlines.reward_s`` of the pipelined trainer.
    """

    reward_s: float = 300.0


@dataclass
class RefineConfig:
    """The second round, for problems whose samples disagree.

    See :mod:`verl_pipeline.evaluation.second_round`.

    Attributes:
        n: samples of the second round per problem; 0: no second round.
        agreement: a problem enters the second round if its leading answer has less than this share
            of the vote's weight.
        confidence: a problem also enters if the mean confidence of its samples is below this; a
            sample's confidence is the geometric mean of its token probabilities; 0: off.
    """

    n: int = 0
    agreement: float = 0.5
    confidence: float = 0.0


@dataclass
class ConfidenceConfig:
    """Confidence in windows of a sample; it needs ``engine.top_logprobs``.

    See :mod:`verl_pipeline.evaluation.confidence_methods`.

    Attributes:
        window: tokens of a window; a shorter sample is one window.
        keep: share of the samples, the most confident ones, that a filtered vote keeps, and whose
            lowest confidence in the warm-up is the threshold of early stop.
        warmup: samples of a problem that are generated to their end before early stop begins.
        consensus: early stop begins no further sample once the leading answer has this share of
            the vote's weight.
    """

    window: int = 1024
    keep: float = 0.5
    warmup: int = 4
    consensus: float = 0.95


@dataclass
class BehaviourConfig:
    """Votes of programs by what they do; see :mod:`verl_pipeline.evaluation.behaviours`.

    Attributes:
        inputs: generated inputs that the programs of a problem run on; 0: no votes by behaviour.
        cpu_s: CPU seconds of a program on one input.
    """

    inputs: int = 0
    cpu_s: float = 2.0


@dataclass
class EvalConfig:
    """All settings of an evaluation.

    Attributes:
        model: folder or hub name of a model in Hugging Face's format; ``canonical``: the data's own
            solutions, which must score 100 %; ``empty``: empty answers, which must score 0 %; or a
            JSONL file with the answers of another engine.
        tasks: task names (:mod:`verl_pipeline.evaluation.tasks`).
        output: folder for samples, verdicts, results and report.
        data: folder of local data files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be downloaded from the hub.
        style: ``chat``: the model writes the whole response; ``prefill``: the response begins with
            the task's prefill, for models that do not think.
        system: system prompt of every conversation; None: no system prompt.
        purpose: ``report``; or ``choose`` between checkpoints, which marks results on test splits.
        limit: number of problems of each task, from the first; None: all.
        train_data: files or patterns, as in ``data.train_files``, that the model was trained on;
            problems found in them are listed.
        scorer: how best-of-n chooses a sample: highest ``mean_logprob``, ``shortest``, or highest
            value of ``package.module.function`` of the sample's row.
        options: options of tasks, by task name.
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
    grader: ResponseGraderConfig = field(default_factory=ResponseGraderConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    options: dict[str, Any] = field(default_factory=dict)


def is_preset_model(model: str) -> bool:
    """Whether ``model`` names answers that exist already, so that no model is needed."""
    return model in ("canonical", "empty") or model.endswith(".jsonl")


class BadSetting(UserError):
    """A setting that cannot work; the message names the setting and the fix, in one line."""

    def __init__(self, text: str):
        # It may quote a value of several lines.
        super().__init__(" ".join(text.splitlines()))
