"""A training set without texts, and what its prompts earn, for the tests of the curriculum."""

import numpy as np

from verl_pipeline.curriculum.curriculum import Curriculum
from verl_pipeline.curriculum.outcomes import make_outcomes
from verl_pipeline.curriculum.protocol import PromptTable
from verl_pipeline.curriculum.registry import load_selector

MEMBERS = 8


def make_prompts(n, rates=None, sources=None, difficulties=None, texts=None):
    """Prompts whose order is another one in every epoch."""
    return PromptTable(
        order=lambda epoch: np.random.RandomState([7, epoch]).permutation(n),
        sources=sources or ["s"] * n,
        difficulties=difficulties or [""] * n,
        pass_rates=np.full(n, np.nan) if rates is None else np.asarray(rates, dtype=np.float64),
        read_texts=lambda: texts or [f"prompt {row}" for row in range(n)],
    )


def make_curriculum(entry, prompts, *, batch_size, lag=1, floor_share=0.1, seed=3, print_="f"):
    return Curriculum(
        load_selector(entry),
        prompts,
        batch_size=batch_size,
        lag=lag,
        floor_share=floor_share,
        seed=seed,
        fingerprint=print_,
    )


def earn(curriculum, batch, pass_rates):
    """Outcomes of a batch that follow from (row, batch) alone, as a run's follow from its seeds."""
    proposal = curriculum.get_proposal(batch)
    places = np.repeat(np.arange(len(proposal.rows)), MEMBERS)
    rewards = np.concatenate(
        [
            np.random.RandomState([11, batch, row]).rand(MEMBERS) < pass_rates[row]
            for row in proposal.rows
        ]
    ).astype(np.float64)
    lengths = np.full(len(places), 10)
    return make_outcomes(proposal, places, rewards, lengths, np.full(len(places), batch - 1), None)


def run_steps(curriculum, pass_rates, steps, *, lead, first=1, chosen=None):
    """As the schedule does: in step k submit up to batch k + lead, then train batch k.

    Returns:
        The rows of each batch that was submitted.
    """
    chosen = {} if chosen is None else chosen
    for step in range(first, first + steps):
        for batch in range(max(chosen, default=0) + 1, step + lead + 1):
            chosen[batch] = curriculum.propose(batch).tolist()
        curriculum.observe(step, earn(curriculum, step, pass_rates))
    return chosen
