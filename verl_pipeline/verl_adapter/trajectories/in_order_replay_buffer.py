"""Waits for trajectories and hands them to the trainer, batch by batch, in the loader's order.

Invariants:
* Batch k consists of exactly the prompts submitted as batch k: nothing is refilled, evicted or
  taken from another batch.
* A prompt whose trajectories failed keeps those that did not. What is missing is counted, with its
  first cause.
* Polling takes at most a tenth of TransferQueue's time, whatever the size of the batch: a poll asks
  for the open prompts only, and the pause grows with the time that a poll takes. A wait ends at
  most one such pause and one poll late, and lists the partition once at its start and at its end.
* No wait without a deadline, which restarts when something of the pool ends; meanwhile the watchdog
  checks that nothing awaited has died.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable

from transfer_queue import KVBatchMeta

from verl_pipeline.trainer.batch import SamplingReport, check_validation
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.trainer.trajectory_keys import (
    make_loader_sort_key,
    parse_batch,
    parse_prompt,
    parse_session,
)
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    TERMINAL,
    TRAIN,
    VALIDATION,
    list_tags,
    read_tags,
    read_traceback,
    remove_rows,
)

# The cost of a poll grows with the open prompts, so the pause does too.
MIN_POLL_S = 0.02
POLL_DUTY = 0.1
# A poll costs the median of so many: one may have waited for something else.
_RECENT_POLLS = 5


class InOrderReplayBuffer:
    """verl's replay buffer interface (``sample``) over whole batches.

    Args:
        deadline_s: longest wait for a batch while nothing of the rollout pool ends, in seconds.
        watchdog: called every ``watch_every_s`` seconds of a wait; raises if something awaited is
            dead.
        watch_every_s: see ``watchdog``.
        find_idle_s: seconds since a request, a reward or a trajectory last ended in the pool; asked
            before a wait is given up.
        describe_pool: what the rollout pool holds and does; asked for the message of a wait that is
            given up.
    """

    def __init__(
        self,
        deadline_s: float,
        watchdog: Callable[[], None],
        watch_every_s: float,
        find_idle_s: Callable[[], float] = lambda: math.inf,
        describe_pool: Callable[[], str] = lambda: "",
    ):
        self.deadline_s = deadline_s
        self.watchdog = watchdog
        self.watch_every_s = watch_every_s
        self.find_idle_s = find_idle_s
        self.describe_pool = describe_pool
        # By batch, from sample() until the trainer has checked it.
        self.reports: dict[int, SamplingReport] = {}
        # Of validation's batches, until the trainer has counted them.
        self.validation_reports: list[SamplingReport] = []

    def wait_until_sampled(self) -> None:
        """Wait until no training prompt is pending or running."""
        self._wait_for_prompts(TRAIN, lambda prompt: True)

    def find_complete_lead(self, trained: int) -> int:
        """The last of the complete batches that follow batch ``trained`` without a gap."""
        is_complete: dict[int, bool] = {}
        for key, tag in list_tags(TRAIN).items():
            batch = parse_batch(key)
            if batch is not None and tag.get("is_prompt", False):
                is_complete[batch] = is_complete.get(batch, True) and not _is_open(tag)
        lead = trained
        while is_complete.get(lead + 1, False):
            lead += 1
        return lead

    def find_held_batches(self) -> dict[int, set[int]]:
        """Batches in TransferQueue, each with the weight versions that sampled it."""
        held: dict[int, set[int]] = {}
        for key, tag in list_tags(TRAIN).items():
            batch = parse_batch(key)
            if batch is not None:
                versions = held.setdefault(batch, set())
                if not tag.get("is_prompt", False):
                    versions |= {tag["min_global_steps"], tag["max_global_steps"]}
        return held

    def take_validation_failures(self) -> tuple[int, str | None]:
        """Trajectories that failed in validations since the last call, and their first error."""
        reports, self.validation_reports = self.validation_reports, []
        first_error = next((report.first_error for report in reports if report.first_error), None)
        return sum(report.missing for report in reports), first_error

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict]:
        """Take a batch out of the queue once all of its prompts are terminal.

        Args:
            global_steps: number of the batch (training), or the version that is validated.
            partition_id: "train" or "val".
            batch_size: prompts expected.

        Returns:
            The rows in the data loader's order (validation: by name), and metrics.

        Raises:
            DeadlineExceeded: some prompts were not terminal in time; they are named.
            RuntimeError: the queue does not hold the expected prompts, or none of their
                trajectories, or a validation was sampled with other weights.
        """
        is_validation = partition_id == VALIDATION

        def is_awaited(prompt: str) -> bool:
            return is_validation or parse_batch(prompt) == global_steps

        tags = self._wait_for_prompts(partition_id, is_awaited)
        prompts = [
            key for key, tag in tags.items() if tag.get("is_prompt", False) and is_awaited(key)
        ]
        what = "validation" if is_validation else f"batch {global_steps}"
        if len(prompts) != batch_size:
            raise RuntimeError(
                f"{what}: TransferQueue holds {len(prompts)} prompts, {batch_size} were submitted"
            )
        chosen = set(prompts)
        keys = sorted(
            (
                key
                for key, tag in tags.items()
                if not tag.get("is_prompt", False) and parse_prompt(key) in chosen
            ),
            key=make_loader_sort_key,
        )
        report = report_sampling({key: tags[key] for key in [*prompts, *keys]}, partition_id)
        if is_validation:
            self.validation_reports.append(report)
        else:
            self.reports[global_steps] = report
        if not keys:
            raise RuntimeError(
                f"{what}: all {report.requested} trajectories failed in generation or reward; "
                "first failure:\n"
                f"{report.first_error or '(recorded in the log of the agent loop workers)'}"
            )
        remove_rows(prompts, partition_id)
        tags_of_rows = [tags[key] for key in keys]
        if is_validation:
            check_validation(global_steps, tags_of_rows)
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=tags_of_rows), {}

    def _wait_for_prompts(
        self, partition: str, is_awaited: Callable[[str], bool]
    ) -> dict[str, dict]:
        """Poll until no awaited prompt is open; returns the partition's tags at that moment."""
        start = moved = checked = time.monotonic()
        recent: deque[float] = deque(maxlen=_RECENT_POLLS)
        tags = list_tags(partition)
        open_prompts = [
            key for key, tag in tags.items() if tag.get("is_prompt", False) and is_awaited(key)
        ]
        while open_prompts := [key for key in open_prompts if _is_open(tags.get(key))]:
            now = time.monotonic()
            if now - moved > self.deadline_s:
                moved = max(moved, now - self.find_idle_s())
            if now - moved > self.deadline_s:
                tags = list_tags(partition)
                overdue = describe_overdue_prompts(partition, open_prompts, tags, now - start)
                raise DeadlineExceeded("; ".join(filter(None, (overdue, self.describe_pool()))))
            if now - checked > self.watch_every_s:
                self.watchdog()
                checked = time.monotonic()
            cost = statistics.median(recent) if recent else 0.0
            time.sleep(max(cost / POLL_DUTY, MIN_POLL_S))
            polled = time.monotonic()
            # A prompt that is gone is no longer awaited; only a listing tells which.
            tags = read_tags(open_prompts, partition) or list_tags(partition)
            recent.append(time.monotonic() - polled)
        return list_tags(partition)


def _is_open(tag: dict | None) -> bool:
    return tag is not None and tag["status"] not in TERMINAL


def report_sampling(tags: dict[str, dict], partition: str) -> SamplingReport:
    """How the sampling of the prompts in ``tags`` ended, whose rows are in ``tags``, too."""
    prompts = {key: tag for key, tag in tags.items() if tag.get("is_prompt", False)}
    first_error = None
    for key, tag in prompts.items():
        if tag.get("errors"):
            first_error = read_traceback(key, partition, next(iter(tag["errors"].values())))
            break
    group_sizes = {key: tag.get("sessions", 0) for key, tag in prompts.items()}
    return SamplingReport(group_sizes, len(find_missing_sessions(tags)), first_error)


def find_missing_sessions(tags: dict[str, dict]) -> set[tuple[str, int]]:
    """Sessions of the prompts in ``tags`` that have no trajectory in ``tags``.

    A validation prompt does not carry its group size; its recorded failures count.
    """
    requested, present = set(), set()
    for key, tag in tags.items():
        if tag.get("is_prompt", False):
            requested |= {(key, session) for session in range(tag.get("sessions", 0))}
            requested |= {(key, int(session)) for session in tag.get("errors", {})}
        else:
            present.add((parse_prompt(key), parse_session(key)))
    return requested - present


def describe_overdue_prompts(
    partition: str, open_prompts: list[str], tags: dict[str, dict], waited_s: float
) -> str:
    """The message of a wait that passed its deadline; names up to eight prompts."""
    shown = ", ".join(f"{key} ({tags[key]['status']})" for key in sorted(open_prompts)[:8])
    more = f" and {len(open_prompts) - 8} more" if len(open_prompts) > 8 else ""
    return (
        f"waited {waited_s:.0f} s for {len(open_prompts)} prompts of partition {partition}: "
        f"{shown}{more}; the rollout servers answer, but no request, reward or trajectory has "
        "ended for deadlines.batch_s: an agent loop hangs, or one step takes longer: raise "
        f"{PIPELINE_KEY}.deadlines.batch_s, or lower deadlines.trajectory_s to lose only those"
    )
