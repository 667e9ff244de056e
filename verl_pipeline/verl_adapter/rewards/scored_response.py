"""What a reward says of a response, and what verl's default scorer does for which data source.

Invariants:
* A source whose scorer would run a response, or evaluate parts of it, is not among those that
  compare texts; neither is one that nobody has looked at.
* Importing this imports no verl, which takes seconds.
"""

from dataclasses import dataclass

# Sources whose scorers compare texts, as default_compute_score chooses them.
_TEXT_SOURCES = frozenset(
    {
        "openai/gsm8k",
        "lighteval/MATH",
        "DigitalLearningGmbH/MATH-lighteval",
        "HuggingFaceH4/MATH-500",
        "math_dapo",
        "math",
        "math_dapo_reasoning",
        "searchR1_nq",
        "searchR1_triviaqa",
        "searchR1_popqa",
        "searchR1_hotpotqa",
        "searchR1_2wikimultihopqa",
        "searchR1_musique",
        "searchR1_bamboogle",
    }
)
# Sources whose scorers run the response as a program (the first four), pass parts of it to eval()
# (prime_math) or to sympy's parser, which calls eval() (prime_math, mathruler).
_EXECUTING_SOURCES = frozenset(
    {
        "codecontests",
        "apps",
        "codeforces",
        "taco",
        "numina_aops_forum",
        "numina_synthetic_math",
        "numina_amc_aime",
        "numina_synthetic_amc",
        "numina_cn_k12",
        "numina_olympiads",
        "hiyouga/geometry3k",
    }
)


class UngradedResponse(Exception):
    """A response has no reward; the message is one line."""


@dataclass(frozen=True)
class ScoredResponse:
    """What a reward function says of a response.

    Attributes:
        reward: what the training learns from.
        correctness: ``acc`` if the function reports it, else the reward: verl's validation
            chooses its main metric so.
        prediction: the answer that it found (``pred``, by which verl's ``maj@n`` votes), or None.
        verdict, reason: those that it reports, or "".
    """

    reward: float
    correctness: float
    prediction: str | None = None
    verdict: str = ""
    reason: str = ""


def compares_text(data_source: str) -> bool:
    """Whether verl's default scorer knows the source and only compares texts for it."""
    return data_source in _TEXT_SOURCES or data_source.startswith("aime")


def executes_response(data_source: str) -> bool:
    """Whether verl's default scorer would run or evaluate a response to this source."""
    return data_source in _EXECUTING_SOURCES
