"""Why a pool does no work of its own, moment by moment."""

import numpy as np

from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.states import WORK, cause_code, code


def find_causes(
    trainer: np.ndarray,
    rollout: np.ndarray,
    is_slow: np.ndarray,
    is_grading: np.ndarray,
    own_waits: np.ndarray | None = None,
) -> dict[Pool, np.ndarray]:
    """Return why the trainer and the rollout pool do no work of their own; arrays are [parts].

    Args:
        is_slow: all that is in flight is on a slow replica.
        is_grading: a trajectory is being graded, or waits for it.
        own_waits: past the barrier, the cause of each wait of the trainer for its batch, by what is
            left of that batch.

    Returns:
        Codes of causes; -1 where the pool works.
    """
    cause_of_trainer = {
        "wait_reward": "reward",
        "wait_data": "data",
        "weight_sync": "weights",
        "switch": "switch",
        "checkpoint": "checkpoint",
        "validate": "validation",
        "start": "start",
        "down": "down",
    }
    tail = np.where(is_slow, cause_code("slow replica"), cause_code("tail of generation"))
    # While the trainer waits for a batch and the rollout pool has nothing in flight.
    after_rollout = np.where(is_grading, cause_code("reward"), cause_code("polling"))
    # What holds the trainer up, whatever it is.
    trainer_causes = np.full(len(trainer), cause_code("other"))
    for state, cause in cause_of_trainer.items():
        trainer_causes[trainer == code(Pool.TRAINER, state)] = cause_code(cause)
    works = np.isin(trainer, [code(Pool.TRAINER, name) for name in WORK])
    is_waiting = trainer == code(Pool.TRAINER, "wait_rollout")
    waits = np.select(
        [rollout == code(Pool.ROLLOUT, name) for name in ("generating", "tail", "validate")],
        [np.full(len(trainer), cause_code("generation")), tail, cause_code("validation")],
        after_rollout,
    )
    if own_waits is not None:
        waits = after_rollout = own_waits
    rollout_causes = np.where(works, cause_code("training"), trainer_causes)
    rollout_causes = np.where(is_waiting, after_rollout, rollout_causes)
    for state, cause in (
        ("weight_sync", "weights"),
        ("validate", "validation"),
        ("start", "start"),
        ("idle", "end of the run"),
        ("down", "down"),
    ):
        rollout_causes[rollout == code(Pool.ROLLOUT, state)] = cause_code(cause)
    is_tail = rollout == code(Pool.ROLLOUT, "tail")
    rollout_causes[is_tail] = tail[is_tail]
    rollout_causes[rollout == code(Pool.ROLLOUT, "generating")] = -1
    trainer_causes = np.where(is_waiting, waits, trainer_causes)
    trainer_causes[works] = -1
    return {Pool.TRAINER: trainer_causes, Pool.ROLLOUT: rollout_causes}
