"""verl's `separate_async` on emulated replicas in virtual time: one process, seconds a run.

What verl 0.9.1 does (``trainer_separate_async.py``, ``replay_buffer.py``) in the emulated cluster's
time, as :mod:`verl_pipeline.emulated.decision_world` does it for ours: replicas, rewards, weights
and updates are the same functions of the profile. :mod:`benchmarks.emulated_cluster` runs verl's
own code, beside which this can be checked.

Invariants:
* A batch is given to the pool at the begin of each step, ``ahead`` batches before the first; every
  trajectory to the replica with the fewest, where it stays.
* Step k trains on as many finished prompts as a batch has, the oldest first. After the first steps
  it waits for all prompts that were given ``ahead`` steps before, or earlier. What those steps have
  left over for newer prompts may be one update older.
* After an update all that runs is interrupted, waits until the weights are published and loaded,
  and reads its context again.
"""

from math import inf

import numpy as np

from verl_pipeline.emulated.ahead_pool import find_batch_end
from verl_pipeline.emulated.replica import EmulatedReplica, Request
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.replica import make_speed
from verl_pipeline.planner.rewards import RewardPool
from verl_pipeline.planner.schedules import Layout
from verl_pipeline.planner.workload import Workload


class AheadWorld:
    """A run.

    Args:
        workload: at least ``steps + ahead`` batches.
        ahead: batches that are sampled ahead, and the bound on age.

    Attributes:
        largest_age: updates between the weights with which a trajectory was given to the pool and
            those that trained on it.
    """

    def __init__(
        self, profile: Profile, workload: Workload, ahead: int, layout: Layout, steps: int
    ):
        self.profile, self.workload, self.layout = profile, workload, layout
        self.ahead, self.steps = ahead, steps
        self.size = workload.responses.shape[1]
        count = layout.rollout_gpus // profile.sampling.tensor_parallel
        self.replicas = [
            EmulatedReplica(make_speed(profile.sampling, layout.slots, count)) for _ in range(count)
        ]
        self.largest_age = 0
        self._tokens = workload.responses.ravel()
        self._prompts = workload.prompts.ravel()
        self._place = np.full(self._tokens.size, -1)
        self._in_flight = [0] * count
        self._first_version = np.zeros(self._tokens.size, int)
        self._rewards = RewardPool(profile.reward.workers, self._tokens.size)
        self._rewarded = np.full(workload.responses.shape, np.nan)
        # By prompt, samples without a reward; prompts that have none.
        samples = profile.sampling.samples
        self._left = [samples] * (self._tokens.size // samples)
        self._complete = 0
        self._submitted = 0
        self._trained: set[int] = set()

    def run(self) -> list[float]:
        """Return when each update ends, in seconds [steps]."""
        weights, now, ends = self.profile.weights, 0.0, []
        for _ in range(self.ahead):
            self._submit(now, 0)
        for step in range(1, self.steps + 1):
            self._submit(now, step - 1)
            now = max(now, self._wait(step))
            now += self._train(step, now)
            ends.append(now)
            left = self._interrupt(now)
            now += weights.publish_s + weights.load_s
            self._resume(left, now)
        return ends

    def _submit(self, now: float, version: int) -> None:
        first = self._submitted * self.size
        self._submitted += 1
        for number in range(first, first + self.size):
            place = self._place[number] = int(np.argmin(self._in_flight))
            self._in_flight[place] += 1
            self._first_version[number] = version
            request = Request(float(self._tokens[number]), float(self._prompts[number]))
            self._finish(self.replicas[place].submit(number, request, now))

    def _wait(self, step: int) -> float:
        """Let time pass until the batch of a step is there; returns when that is."""
        samples = self.profile.sampling.samples
        while True:
            end = find_batch_end(self._rewarded, samples, step, self.ahead, is_bounded=True)
            complete = self._complete
            # What ends later than the batch is there changes nothing about it.
            while self._complete == complete and (goes_on := self._take_event(end)):
                pass
            if not goes_on:
                break
        if end == inf:
            raise RuntimeError(f"step {step} waits for prompts, and nothing is sampled")
        return end

    def _take_event(self, until: float) -> bool:
        """Let the first event of all replicas happen; whether there was one until then."""
        events = [replica.find_next() for replica in self.replicas]
        place = int(np.argmin(events))
        if events[place] > until or events[place] == inf:
            return False
        self._finish(self.replicas[place].advance(events[place]))
        return True

    def _finish(self, ended: list[tuple[int, float]]) -> None:
        for number, moment in ended:
            batch, index = divmod(number, self.size)
            self._in_flight[self._place[number]] -= 1
            seconds = float(self.workload.rewards[batch, index])
            self._rewarded[batch, index] = self._rewards.finish(moment, seconds)
            group = number // self.profile.sampling.samples
            self._left[group] -= 1
            self._complete += self._left[group] == 0

    def _train(self, step: int, now: float) -> float:
        """Take the batch of a step; returns its seconds."""
        samples = self.profile.sampling.samples
        done = self._rewarded.reshape(-1, samples).max(axis=1) <= now
        prompts = self.size // samples
        found = [group for group in np.flatnonzero(done).tolist() if group not in self._trained]
        # verl's tag: the step at which a prompt was given; of a step's prompts any.
        found.sort(key=lambda group: max(1, group // prompts + 1 - self.ahead))
        taken = found[:prompts]
        self._trained.update(taken)
        rows = (np.array(taken)[:, None] * samples + np.arange(samples)).ravel()
        age = step - 1 - int(self._first_version[rows].min())
        self.largest_age = max(self.largest_age, age)
        tokens = float(self._tokens[rows].sum() + self._prompts[rows].sum())
        sampling, gpus = self.profile.sampling, self.layout.trainer_gpus
        return self.profile.training.compute_seconds(tokens, sampling.mean_tokens, gpus)

    def _interrupt(self, now: float) -> list[tuple[int, float]]:
        """Stop everything; returns what was not done, with the tokens that are left."""
        while self._take_event(now):
            pass
        left = []
        for replica in self.replicas:
            _ended, aborted = replica.abort(now)
            left += aborted
        return left

    def _resume(self, left: list[tuple[int, float]], now: float) -> None:
        for number, tokens in sorted(left):
            done = float(self._tokens[number]) - tokens
            request = Request(tokens, float(self._prompts[number]) + done)
            self.replicas[self._place[number]].submit(number, request, now)
