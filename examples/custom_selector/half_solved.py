"""A selector: prompts whose last group was solved nearest to half come first."""

import numpy as np

from verl_pipeline.curriculum.protocol import make_random


class HalfSolved:
    """Prefers prompts whose last group was solved nearest to half; a draw decides ties."""

    name = "half_solved"
    covers_all = False  # the floor takes its share of the places

    def begin(self, prompts, seed):
        self._seed = seed
        self._rates = np.where(np.isnan(prompts.pass_rates), 0.5, prompts.pass_rates)

    def choose(self, batch, count, free):
        rows = np.flatnonzero(free)
        drawn = make_random(self._seed, batch).random_sample(len(rows))
        best = np.lexsort((drawn, np.abs(self._rates[rows] - 0.5)))
        return rows[best[:count]]

    def predict(self, batch, rows):
        return self._rates[rows]

    def observe(self, batch, outcomes):
        for outcome in outcomes:
            if len(outcome.successes):
                self._rates[outcome.row] = outcome.successes.mean()

    def state_dict(self):
        return {"rates": self._rates.copy()}

    def load_state_dict(self, state):
        self._rates = state["rates"].copy()
