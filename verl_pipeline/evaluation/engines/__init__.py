"""What answers: vLLM in this process, a server, or answers that are there already.

Invariants of every engine:
* A request that failed comes back as a :class:`Failed`, never as an empty answer.
* Requests are drawn as there is room, and come back as they finish: nothing waits for the slowest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.task import Message, Sampling

# An answer that was begun for the model ends with its block of code.
PREFILL_STOP = "\n```"


@dataclass(frozen=True)
class Request:
    """One sample to draw.

    Attributes:
        task, id: of the problem.
        sample: number of the sample, from 0.
        messages: the conversation so far.
        prefill: how the answer begins; part of the response.
        canonical: a right response, which only the engine of that name may look at.
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
    """What came of a request.

    Attributes:
        response: text, with the prefill.
        prompt_tokens, tokens: of the prompt, and generated.
        finish: ``length`` if it was cut off.
        mean_logprob: of the generated tokens under the model's own distribution (temperature 1), if
            the engine tells.
    """

    response: str
    prompt_tokens: int
    tokens: int
    finish: Literal["stop", "length"]
    mean_logprob: float | None = None


@dataclass(frozen=True)
class Failed:
    """A request that brought no answer, and why; it can be asked again."""

    reason: str


class EngineError(Refused):
    """The engine cannot do what is asked; the message says why and what to do."""


class Engine(Protocol):
    """See the module's invariants."""

    def identity(self) -> dict[str, Any]:
        """What the samples belong to: ``name``, ``weights`` (SHA-256 or None), and what else tells
        models apart.
        """

    def settings(self) -> dict[str, Any]:
        """How it generates, for the record: ``kind``, limits, position scaling."""

    def check_lengths(self, requests: Iterable[Request], sampling: Sampling, more: int = 0) -> None:
        """Refuse before anything is loaded what the model cannot hold; ``more``: tokens by which
        prompts may grow.

        Raises:
            EngineError: a prompt and ``max_tokens`` together are longer than the model's limit.
        """

    def generate(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[Request, Generation | Failed]]:
        """Answers, in the order in which they finish."""

    def close(self) -> None:
        """End what it started."""
