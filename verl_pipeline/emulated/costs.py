"""How long the emulated trainer computes, and how long weights take.

Invariant: the seconds of log-probs and update of a batch sum to the planner's.
"""

from dataclasses import dataclass

from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.planner.profile import LOG_PROB_OPERATIONS, UPDATE_OPERATIONS, Profile


@dataclass(frozen=True)
class TrainerCosts:
    """Costs of the trainer's pool.

    Attributes:
        run: of which they are.
        is_bypassed: whether verl computes no log-probs; the update then takes their time, too, so
            that modes that do and that do not compare.
    """

    run: EmulatedCluster
    is_bypassed: bool

    def compute_log_probs(self, tokens: float) -> float:
        """Seconds of all passes that compute log-probs of ``tokens`` emulated tokens."""
        return 0.0 if self.is_bypassed else self._log_prob_share * self._compute_all(tokens)

    def compute_update(self, tokens: float) -> float:
        """Seconds of forward, backward and optimiser."""
        return self._compute_all(tokens) - self.compute_log_probs(tokens)

    @property
    def _log_prob_share(self) -> float:
        return find_log_prob_share(self.run.cluster)

    def _compute_all(self, tokens: float) -> float:
        profile = self.run.cluster
        return profile.training.compute_seconds(
            tokens, profile.sampling.mean_tokens, self.run.trainer_gpus
        )


def find_log_prob_share(profile: Profile) -> float:
    """Share of the trainer's seconds that passes without a gradient take."""
    training = profile.training
    if training.parameters:
        passes = LOG_PROB_OPERATIONS * training.log_prob_passes
        return passes / (UPDATE_OPERATIONS + passes)
    return training.log_prob_s / (training.update_s + training.log_prob_s)
