"""The names that a second of a pool can have, and the causes of seconds without work of its own.

Source of the definitions for people: ``docs/accounting-names.md`` (a test compares the two).
"""

from verl_pipeline.telemetry.records import Pool

# By pool: name of a second -> what happened in it. The order is that of the codes.
STATES: dict[Pool, dict[str, str]] = {
    Pool.TRAINER: {
        "old_log_prob": "log-probs with the trainer's weights",
        "ref": "log-probs of the reference model",
        "values": "the critic's values",
        "advantage": "advantages and returns",
        "update": "update of the actor or the critic",
        "wait_rollout": "waits until the batch is generated",
        "wait_reward": "the batch is generated; waits until it is graded",
        "wait_data": "waits for the data loader",
        "weight_sync": "sends weights to the rollout pool",
        "switch": "devices change hands: replicas stop, sleep or wake",
        "checkpoint": "saves a checkpoint",
        "validate": "validates",
        "start": "before the first step: models load",
        "down": "between the end of one start of the run and the next start",
        "other": "nothing that was recorded: balancing, filters, logging, or what a process that "
        "was killed had not ended",
    },
    Pool.ROLLOUT: {
        "generating": "generates training trajectories, at least half of its places busy",
        "tail": "generates its last trajectories: fewer than half of its places busy, or all of "
        "them on a slow replica",
        "draining": "the same, because its weights are too old for what waits: it runs empty, and "
        "then loads newer ones",
        "wait_trainer": "has nothing to generate until the trainer submits a batch, or publishes "
        "weights that what waits may have",
        "dispatch": "has nothing to generate, and may begin what waits, but has not got it yet",
        "weight_sync": "loads weights",
        "validate": "generates a validation",
        "start": "before the first batch is submitted",
        "idle": "after the last trajectory of the run",
        "down": "between the end of one start of the run and the next start",
    },
    Pool.REWARD: {
        "busy": "at least one trajectory waits for its reward or is being graded",
        "idle": "none is",
    },
}
# Why a pool does no work of its own.
CAUSES: dict[str, str] = {
    "generation": "the batch was being generated, at least half of the places busy",
    "tail of generation": "the last trajectories of a batch were being generated",
    "drain before a load": "a replica ran empty, to load newer weights",
    "slow replica": "all trajectories in flight were on a replica that needs at least a quarter "
    "more time per token than the others",
    "training": "the trainer computed",
    "reward": "trajectories were being graded",
    "weights": "weights were being sent",
    "switch": "devices changed hands between training and rollout",
    "data": "the data loader had nothing",
    "checkpoint": "a checkpoint was being saved",
    "validation": "a validation ran",
    "dispatch": "a replica had room, and had not got what waited yet",
    "polling": "all was generated and graded, and the trainer had not noticed: verl's buffer polls",
    "start": "the run was starting",
    "end of the run": "nothing was left to generate",
    "down": "no process of the run lived",
    "other": "nothing that was recorded",
}
# The trainer's own work.
WORK = ("old_log_prob", "ref", "values", "advantage", "update")
# By pool that has causes, the states that need none.
OWN_WORK = {Pool.TRAINER: WORK, Pool.ROLLOUT: ("generating",)}
# Span -> state of the trainer. An inner span counts before an outer one: a drain before a
# checkpoint is a wait for rollout, which the next step would have had otherwise.
SPANS = {
    "old_log_prob": "old_log_prob",
    "ref": "ref",
    "values": "values",
    "adv": "advantage",
    "update_critic": "update",
    "update_actor": "update",
    "gen": "wait_rollout",
    "wait_rollout": "wait_rollout",
    "switch_wait": "wait_rollout",
    "pause_rollout": "switch",
    "switch_to_trainer": "switch",
    "switch_to_rollout": "switch",
    "reward": "wait_reward",
    "wait_reward": "wait_reward",
    "wait_data": "wait_data",
    "update_weights": "weight_sync",
    "save_checkpoint": "checkpoint",
    "testing": "validate",
    "start": "start",
    "step": "other",
}


def code(pool: Pool, name: str) -> int:
    """Return the number that stands for a state in arrays."""
    return list(STATES[pool]).index(name)


def cause_code(name: str) -> int:
    """Return the number that stands for a cause in arrays; -1 stands for none."""
    return list(CAUSES).index(name)
