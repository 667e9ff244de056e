"""A second round for problems on which the samples disagree.

The first round's samples vote, each weighted by its confidence (the geometric mean of its tokens'
probabilities: the sequence-level relative of the weights in DeepConf, Fu et al. 2025, arXiv
2508.15260). Where the winner has less than ``refine.agreement`` of the weight, or the samples' mean
confidence is below ``refine.confidence``, the model is shown earlier attempts, one in each new
request, and for programs how they did on the examples that the prompt shows; then all samples of
both rounds vote.

Invariants:
* What a request says of an attempt rests on the examples of the prompt, never on a hidden test.
* The cost of both rounds stands beside the score.
"""

import hashlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from verl_pipeline.evaluation import estimators
from verl_pipeline.evaluation.config import RefineConfig
from verl_pipeline.evaluation.engines import Request
from verl_pipeline.evaluation.scores import Graded, confidence, have_logprobs
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import Item, Sampling
from verl_pipeline.grading.program_extraction import extract_answer_text, extract_last_program

# Characters of an attempt that are shown again, and tokens for which a second prompt may be longer
# than the first.
MOST_ATTEMPT, MORE_TOKENS = 4000, 4096
ASK = (
    "{outcome} Check the attempt step by step, correct what is wrong in it, or solve the problem in"
    " another way. Give your final answer in the same form as before."
)


def agreement(rows: Sequence[Row]) -> float:
    """Share of the winning answer in the weight of all samples; samples without an answer agree
    with nobody.
    """
    votes = [(row["answer"], confidence(row)) for row in rows]
    winner = votes[estimators.vote(votes)][0]
    if winner is None:
        return 0.0
    total = sum(weight for _answer, weight in votes)
    return sum(weight for answer, weight in votes if answer == winner) / total if total else 0.0


def uncertain(graded: Graded, config: RefineConfig) -> list[str]:
    """Problems that are asked again."""
    return [
        name
        for name, rows in graded.items()
        if agreement(rows) < config.agreement
        or statistics.fmean(map(confidence, rows)) < config.confidence
    ]


def requests(
    task: str,
    style: str,
    items: Sequence[Item],
    graded: Graded,
    config: RefineConfig,
    sampling: Sampling,
) -> Iterator[Request]:
    """``refine.n`` for each uncertain problem, with its attempts in turn, the most confident first."""
    chosen = set(uncertain(graded, config))
    for item in items:
        if item.id not in chosen:
            continue
        attempts = sorted(
            graded[item.id],
            key=lambda row: (row["answer"] is None, -confidence(row), row["sample"]),
        )
        for number in range(config.n):
            attempt = attempts[number % len(attempts)]
            shown = (
                {"role": "assistant", "content": _shown(attempt["response"])},
                _feedback(attempt),
            )
            seed = sampling.seed_of(f"second round: {item.id}", number)
            prefill = item.prefill if style == "prefill" else ""
            yield Request(task, item.id, number, seed, (*item.messages, *shown), prefill)


def digest(asked: Iterable[Request]) -> str:
    """Of what a second round asks: its samples count for the same questions only."""
    whole = hashlib.sha256()
    for request in asked:
        whole.update(
            repr(
                (request.id, request.sample, request.seed, request.messages, request.prefill)
            ).encode()
        )
    return whole.hexdigest()[:12]


def combined(graded: Graded, second: Graded) -> list[dict[str, Any]]:
    """The votes over both rounds, as further methods."""
    both = {name: [*rows, *second.get(name, [])] for name, rows in graded.items()}
    cost = statistics.fmean(sum(row["tokens"] for row in rows) for rows in both.values())
    ways = {"vote": lambda _row: 1.0} | (
        {"vote weighted by confidence": confidence} if have_logprobs(both) else {}
    )
    found = []
    for name, weigh in ways.items():
        rewards = [
            rows[estimators.vote([(row["answer"], weigh(row)) for row in rows])]["reward"]
            for rows in both.values()
        ]
        interval = estimators.proportion_interval(rewards).as_dict()
        found.append(
            {"name": f"{name}, after a second round", **interval, "tokens_per_problem": cost}
        )
    return found


def _shown(response: str) -> str:
    """The answer of an attempt, without its thoughts."""
    program = extract_last_program(response)
    text = f"```python\n{program}```" if program else extract_answer_text(response).strip()
    return text[-MOST_ATTEMPT:] or "(no answer)"


def _feedback(attempt: Row) -> dict[str, str]:
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
    return {"role": "user", "content": ASK.format(outcome=outcome)}
