"""Waits for trajectories and hands them to the trainer, batch by batch and in the data loader's
order.

Invariants:
* Batch k is exactly the prompts submitted as batch k: nothing is refilled, evicted or taken from
  another batch.
* A prompt whose trajectories failed keeps those that did not; what is missing is counted, with its
  first cause.
* Polling takes a tenth of TransferQueue's time or one poll in :data:`MAX_POLL_S`, whichever is
  more; it adds at most that pause and one poll to a wait.
* No wait without a deadline; the watchdog is asked meanwhile whether anything awaited has died.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from verl_pipeline.trainer import prompts
from verl_pipeline.trainer.deadline import DeadlineExceeded

TERMINAL = ("finished", "failure")
# A poll lists every key of the partition; its cost grows with the batch, so the pause between polls
# does too.
MIN_POLL_S = 0.02
MAX_POLL_S = 1.0
POLL_DUTY = 0.1


@dataclass(frozen=True)
class Losses:
    """Trajectories of one batch that never became rows.

    Attributes:
        group_sizes: trajectories asked for, by prompt.
        missing: how many of them are not there.
        first_error: traceback of the first failure, if a worker recorded one.
    """

    group_sizes: dict[str, int]
    missing: int
    first_error: str | None

    @property
    def expected(self) -> int:
        """Trajectories asked for."""
        return sum(self.group_sizes.values())


class InOrderReplayBuffer:
    """verl's replay buffer interface (``sample``) over whole batches.

    Args:
        deadline_s: longest wait for a batch, in seconds.
        watchdog: called every ``watch_every_s`` seconds of a wait; raises if something awaited is
            dead.
        watch_every_s: see ``watchdog``.
    """

    def __init__(self, deadline_s: float, watchdog: Callable[[], None], watch_every_s: float):
        self.deadline_s = deadline_s
        self.watchdog = watchdog
        self.watch_every_s = watch_every_s
        # By batch, from sample() until the trainer has taken it.
        self.losses: dict[int, Losses] = {}
        # Trajectories given up, prompt and session; their requests may run on until the next weight
        # sync.
        self.given_up: set[tuple[str, int]] = set()
        self._ever_given_up: set[tuple[str, int]] = set()

    def _give_up(self, missing: set[tuple[str, int]]) -> None:
        """Each once: the sync after it aborts its request, later ones must not need to."""
        self.given_up |= missing - self._ever_given_up
        self._ever_given_up |= missing

    def drain(self) -> None:
        """Wait until no training prompt is pending or running."""
        tags = self._wait("train", lambda uid: True)
        self._give_up(_missing(tags))

    def held_batches(self) -> dict[int, set[int]]:
        """Batches in TransferQueue, each with the weight versions its trajectories were sampled
        with.
        """
        tags = _tags("train")
        held: dict[int, set[int]] = {}
        for key, tag in tags.items():
            batch = prompts.batch_of(key)
            if batch is not None:
                versions = held.setdefault(batch, set())
                if not tag.get("is_prompt", False):
                    versions |= {tag["min_global_steps"], tag["max_global_steps"]}
        return held

    def discard(self, batch: int) -> None:
        """Forget everything of a batch that a checkpoint holds although it was trained, verl's
        padding included.
        """
        tags = _tags("train")
        keys = [
            key
            for key, tag in tags.items()
            if tag.get("is_padding", False) or prompts.batch_of(key) == batch
        ]
        if keys:
            tq.kv_clear(keys=keys, partition_id="train")

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict]:
        """Take a batch out of the queue, once all of it is terminal.

        Args:
            global_steps: number of the batch (training); ignored for validation.
            partition_id: "train" or "val".
            batch_size: prompts expected.

        Returns:
            The rows in the data loader's order (validation: by name), and metrics.

        Raises:
            DeadlineExceeded: some prompts were not terminal in time; they are named.
            RuntimeError: the queue does not hold the prompts expected, or not one trajectory of
                them.
        """
        validation = partition_id == "val"

        def awaited(uid: str) -> bool:
            return validation or prompts.batch_of(uid) == global_steps

        tags = self._wait(partition_id, awaited)
        uids = [key for key, tag in tags.items() if tag.get("is_prompt", False) and awaited(key)]
        what = "validation" if validation else f"batch {global_steps}"
        if len(uids) != batch_size:
            raise RuntimeError(
                f"{what}: TransferQueue holds {len(uids)} prompts, {batch_size} were submitted"
            )
        chosen = set(uids)
        keys = [
            key
            for key, tag in tags.items()
            if not tag.get("is_prompt", False) and prompts.prompt_of(key) in chosen
        ]
        keys.sort(key=prompts.order)
        missing = _missing({key: tags[key] for key in [*uids, *keys]})
        self._give_up(missing)
        errors = [error for uid in uids for error in tags[uid].get("errors", {}).values()]
        losses = Losses(
            {uid: tags[uid].get("sessions", 0) for uid in uids},
            len(missing),
            errors[0] if errors else None,
        )
        if not validation:
            self.losses[global_steps] = losses
        if not keys:
            raise RuntimeError(
                f"{what}: not one of {losses.expected} trajectories could be generated and "
                "rewarded; first failure:\n"
                f"{losses.first_error or '(recorded in the log of the agent loop workers)'}"
            )
        tq.kv_clear(keys=uids, partition_id=partition_id)
        return (
            KVBatchMeta(partition_id=partition_id, keys=keys, tags=[tags[key] for key in keys]),
            {},
        )

    def _wait(self, partition_id: str, awaited: Callable[[str], bool]) -> dict[str, dict]:
        """Poll until no awaited prompt is pending or running; returns the partition's tags at that
        moment.
        """
        start = checked = time.monotonic()
        while True:
            asked = time.monotonic()
            tags = _tags(partition_id)
            open_prompts = [
                uid
                for uid, tag in tags.items()
                if tag.get("is_prompt", False) and tag["status"] not in TERMINAL and awaited(uid)
            ]
            if not open_prompts:
                return tags
            now = time.monotonic()
            if now - start > self.deadline_s:
                raise DeadlineExceeded(_overdue(partition_id, open_prompts, tags, now - start))
            if now - checked > self.watch_every_s:
                self.watchdog()
                checked = time.monotonic()
            time.sleep(min(max((now - asked) / POLL_DUTY, MIN_POLL_S), MAX_POLL_S))


def _tags(partition_id: str) -> dict[str, dict]:
    return (tq.kv_list(partition_id) or {}).get(partition_id, {})


def _missing(tags: dict[str, dict]) -> set[tuple[str, int]]:
    """Sessions of the prompts in ``tags`` that have no trajectory in ``tags``.

    A validation prompt does not say how many sessions were asked for; those whose failure was
    recorded count.
    """
    asked, present = set(), set()
    for key, tag in tags.items():
        if tag.get("is_prompt", False):
            asked |= {(key, session) for session in range(tag.get("sessions", 0))}
            asked |= {(key, int(session)) for session in tag.get("errors", {})}
        else:
            present.add((prompts.prompt_of(key), prompts.session_of(key)))
    return asked - present


def _overdue(
    partition_id: str, open_prompts: list[str], tags: dict[str, dict], waited: float
) -> str:
    shown = ", ".join(f"{uid} ({tags[uid]['status']})" for uid in sorted(open_prompts)[:8])
    more = f" and {len(open_prompts) - 8} more" if len(open_prompts) > 8 else ""
    return (
        f"waited {waited:.0f} s for {len(open_prompts)} prompts of partition {partition_id}: "
        f"{shown}{more}; the rollout servers answer, so generation or a reward is slower than "
        "deadlines.batch_s, or an agent loop hangs: raise "
        "trainer.v1.one_off_pipeline.deadlines.batch_s, or lower deadlines.trajectory_s to lose "
        "only those"
    )
