"""Generation engines: vLLM in this process, an OpenAI-compatible server, or preset answers.

Invariants of every engine:
* A failed request yields a :class:`FailedRequest`, never an empty response.
* Requests are started as capacity allows and yielded as they finish: none waits for the slowest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.task import Message, SamplingParameters

# With a prefill, the response ends with its code block.
PREFILL_STOP = "\n```"


@dataclass(frozen=True)
class SampleRequest:
    """A request for one sample.

    Attributes:
        task: name of the task.
        id: id of the problem.
        sample: number of the sample, from 0.
        seed: seed of the sample.
        messages: the conversation so far.
        prefill: beginning of the response.
        canonical: a correct response, which only ``model=canonical`` uses.
    """

    task: str
    id: str
    sample: int
    seed: int
    messages: tuple[Message, ...]
    prefill: str = ""
    canonical: str | None = None


@dataclass(frozen=True)
class Generation:
    """A generated response.

    Attributes:
        response: text, including the prefill.
        prompt_tokens: tokens of the prompt.
        tokens: generated tokens.
        finish: ``length`` if the response was cut off at ``max_tokens``.
        mean_logprob: mean log-prob of the generated tokens under the model's own distribution
            (temperature 1); None if the engine does not report it.
        token_confidences: confidence of each generated token
            (:mod:`verl_pipeline.evaluation.token_confidence`), rounded; None if not recorded.
    """

    response: str
    prompt_tokens: int
    tokens: int
    finish: Literal["stop", "length"]
    mean_logprob: float | None = None
    token_confidences: list[float] | None = None


@dataclass(frozen=True)
class FailedRequest:
    """A request without a response, and the reason; it may be repeated."""

    reason: str


@dataclass(frozen=True)
class RequestCheck:
    """What an engine can do for the requests of a task.

    Attributes:
        left_out: request parameters that the server refuses and that are left out.
        caveats: what the results lose by that, and by what the server does not return.
    """

    left_out: tuple[str, ...] = ()
    caveats: tuple[Caveat, ...] = ()


class EngineError(UserError):
    """The model or the server cannot be used; the message says why and how to fix it."""


class Engine(Protocol):
    """Generates responses; the module lists the invariants."""

    def describe_model(self) -> dict[str, Any]:
        """Return the model's ``name``, its ``weights`` (SHA-256 or None), and other identity."""

    def describe_settings(self) -> dict[str, Any]:
        """Return the settings that affect the samples: ``kind``, limits, RoPE scaling."""

    def check_requests(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters, extra_tokens: int = 0
    ) -> RequestCheck:
        """Check, before the first sample, that the model or server takes such requests.

        Args:
            requests: at least one for each prompt.
            extra_tokens: tokens by which later prompts may be longer than those of ``requests``.

        Raises:
            EngineError: a prompt plus ``max_tokens`` exceeds the model's limit, or the server
                refuses the requests.
        """

    def generate(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters
    ) -> Iterator[tuple[SampleRequest, Generation | FailedRequest]]:
        """Yield each request with its result, in the order in which they finish."""

    def close(self) -> None:
        """Release the model or the connections."""
