"""The second round, for problems on which the samples disagree.

The samples of the first round vote, weighted by their confidence: the geometric mean of a sample's
token probabilities, the sequence-level counterpart of DeepConf's weights (Fu et al. 2025, arXiv
2508.15260). A problem enters the second round if the winner has less than ``refine.agreement`` of
the weight, or if the samples' mean confidence is below ``refine.confidence``. Each new request
shows the model one earlier attempt and, for programs, its outcome on the examples in the prompt.
Then the samples of both rounds vote.

Invariants:
* The feedback on an attempt depends only on the examples in the prompt, never on hidden tests.
* Scores of the second round include the tokens of both rounds.
"""

import hashlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.answer_methods import compute_confidence, weigh_equally
from verl_pipeline.evaluation.engines import SampleRequest
from verl_pipeline.evaluation.eval_settings import RefineConfig
from verl_pipeline.evaluation.graded_samples import GradedSamples, has_logprobs
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import SamplingParameters, TaskItem
from verl_pipeline.grading.program_extraction import extract_answer_text, extract_last_program

# Characters of an attempt that a second prompt shows.
MAX_ATTEMPT_CHARACTERS = 4000
# Tokens by which a second prompt may be longer than the first.
EXTRA_PROMPT_TOKENS = 4096
# Part of the prompt: a change of the text changes the scores.
INSTRUCTION = (
    "{outcome} Check the attempt step by step, correct what is wrong in it, or solve the problem in"
    " another way. Give your final answer in the same form as before."
)


def compute_agreement(rows: Sequence[Row]) -> float:
    """Return the winning answer's share of the weight of all samples.

    Samples without an answer count for no answer.
    """
    votes = [(row["answer"], compute_confidence(row)) for row in rows]
    winner = votes[estimators.find_vote_winner(votes)][0]
    if winner is None:
        return 0.0
    total = sum(weight for _answer, weight in votes)
    return sum(weight for answer, weight in votes if answer == winner) / total if total else 0.0


def find_uncertain_problems(graded: GradedSamples, config: RefineConfig) -> list[str]:
    """Return the ids of the problems for the second round."""
    return [
        name
        for name, rows in graded.items()
        if compute_agreement(rows) < config.agreement
        or statistics.fmean(map(compute_confidence, rows)) < config.confidence
    ]


def make_requests(
    task: str,
    style: str,
    items: Sequence[TaskItem],
    graded: GradedSamples,
    config: RefineConfig,
    sampling: SamplingParameters,
) -> Iterator[SampleRequest]:
    """Yield ``refine.n`` requests per uncertain problem.

    The requests show the problem's attempts in turn, the most confident first.
    """
    uncertain_ids = set(find_uncertain_problems(graded, config))
    for item in items:
        if item.id not in uncertain_ids:
            continue
        attempts = sorted(
            graded[item.id],
            key=lambda row: (row["answer"] is None, -compute_confidence(row), row["sample"]),
        )
        for number in range(config.n):
            attempt = attempts[number % len(attempts)]
            dialogue = (
                {"role": "assistant", "content": _format_attempt(attempt["response"])},
                _make_feedback(attempt),
            )
            seed = sampling.derive_seed(f"second round: {item.id}", number)
            prefill = item.prefill if style == "prefill" else ""
            yield SampleRequest(task, item.id, number, seed, (*item.messages, *dialogue), prefill)


def digest_requests(requests: Iterable[SampleRequest]) -> str:
    """Return a digest of the requests; stored samples are reused for equal requests only."""
    sha256 = hashlib.sha256()
    for request in requests:
        sha256.update(
            repr(
                (request.id, request.sample, request.seed, request.messages, request.prefill)
            ).encode()
        )
    return sha256.hexdigest()[:12]


def score_both_rounds(graded: GradedSamples, second: GradedSamples) -> list[dict[str, Any]]:
    """Return the scores of votes over both rounds, as entries of ``methods``."""
    both = {name: [*rows, *second.get(name, [])] for name, rows in graded.items()}
    cost = statistics.fmean(sum(row["tokens"] for row in rows) for rows in both.values())
    weights = {"vote": weigh_equally} | (
        {"vote weighted by confidence": compute_confidence} if has_logprobs(both) else {}
    )
    methods = []
    for name, weigh in weights.items():
        winners = [
            rows[estimators.find_vote_winner([(row["answer"], weigh(row)) for row in rows])]
            for rows in both.values()
        ]
        rewards = [row["reward"] for row in winners]
        interval = estimators.estimate_proportion(rewards).as_dict()
        methods.append(
            {"name": f"{name}, after a second round", **interval, "tokens_per_problem": cost}
        )
    return methods


def _format_attempt(response: str) -> str:
    """Return the answer of an attempt without its thoughts."""
    program = extract_last_program(response)
    text = f"```python\n{program}```" if program else extract_answer_text(response).strip()
    return text[-MAX_ATTEMPT_CHARACTERS:] or "(no answer)"


def _make_feedback(attempt: Row) -> dict[str, str]:
    match attempt["shown"]:
        case False:
            outcome = (
                f"On the examples of the problem this program fails: {attempt['verdict']} "
                f"({attempt['reason']})."
            )
        case True:
            outcome = (
                "This program passes the examples of the problem, but other attempts differ "
                "from it."
            )
        case _:
            outcome = "Other attempts came to other answers."
    return {"role": "user", "content": INSTRUCTION.format(outcome=outcome)}
