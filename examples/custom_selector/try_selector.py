"""Try the selector on a policy whose pass rates are known, without a model."""

import numpy as np
from half_solved import HalfSolved

from verl_pipeline.curriculum.curriculum import Curriculum
from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable

N, BATCH, GROUP, LAG = 200, 8, 8, 1  # prompts, those of a batch, samples of each, staleness
RATES = np.random.RandomState(0).choice([0.0, 0.5, 1.0], N)  # the policy does not learn
names = [""] * N
table = PromptTable(lambda epoch: np.arange(N), names, names, np.full(N, np.nan), lambda: names)
curriculum = Curriculum(
    HalfSolved(), table, batch_size=BATCH, lag=LAG, floor_share=0.1, seed=1, fingerprint="mine"
)


def sample(row, is_blind, batch):
    draw = np.random.RandomState([batch, row])
    successes = draw.binomial(1, RATES[row], GROUP).astype(float)
    return GroupOutcome(row, successes, np.full(GROUP, 100), batch - 1, is_blind)


shares = []
for batch in range(1, 101):
    curriculum.propose(batch)  # submitted now
    if (trained := batch - LAG) < 1:
        continue
    chosen = curriculum.get_proposal(trained)
    pairs = zip(chosen.rows.tolist(), chosen.is_blind.tolist(), strict=True)
    outcomes = [sample(row, is_blind, trained) for row, is_blind in pairs]
    shares.append(curriculum.observe(trained, outcomes)["curriculum/signal_share"])
first, last = np.mean(shares[:10]), np.mean(shares[-10:])
print("groups with a signal, at first and at the end:", first.round(2), last.round(2))
assert first < 0.6 < 0.8 < last
