"""What every process of an emulated run has to know: the profile, the layout, the scales, the seed.

It travels as a JSON file, which the environment names.

Invariants:
* A request's length, a prompt's length and a reward's time depend on seed, batch, prompt and sample
  only, so they are the same in every mode, and the same as the planner's. Lengths may be recorded
  ones instead.
* A process never draws more than the run's batches.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from verl_pipeline.emulated.clock import EmulatedClock, create_times, open_times
from verl_pipeline.emulated.trace import follow_trace, read_trace, take_lengths
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.replica import Speed, make_speed
from verl_pipeline.planner.workload import Workload, draw_workload

# Names the file in the environment of a run.
VARIABLE = "VERL_PIPELINE_EMULATED"
# A process holds each batch as three float64 arrays, and each trajectory of it as tokens.
MOST_GPUS = 4096
# The two tokens that name a sample count to this. A response has one more, for when it ends.
MOST_SAMPLES = 26 * 26
FEWEST_TOKENS = 3


@dataclass(frozen=True, kw_only=True)
class EmulatedCluster:
    """One emulated run.

    Attributes:
        profile: name or file of the planner's profile.
        rollout_gpus, trainer_gpus: of the two pools; of a colocated mode, all in both.
        slots: trajectories that a replica decodes at a time.
        batches: that are drawn; rows of the data set over the profile's prompts.
        seed: of lengths and rewards.
        time_scale: emulated seconds in a real one.
        control_scale: emulated seconds that a real second of the control plane counts.
        token_factor: emulated tokens that stand behind one token that verl handles.
        streams_rewards: whether rewards are computed while the batch samples.
        flows: whether each replica begins and loads by itself (rolling and in flight), so that
            publication and load are apart.
        freezes: whether it loads with its requests frozen (in flight).
        staleness: of such a run: how many updates its samples may lag behind.
        steps: of the run; further batches are only drawn.
        ahead: batches that verl's `separate_async` samples ahead of the one that is trained; 0: it
            is another mode.
        is_bounded: whether that mode waits for what is older than so many batches.
        folder: in which each process writes when it emulated what, and with the shared clock.
        slow_replicas: by number, how many times slower these replicas decode.
        dead_replicas: those that never answer.
        trace: a file of recorded response lengths (:mod:`.trace`); empty: they are drawn.
    """

    profile: str
    rollout_gpus: int
    trainer_gpus: int
    slots: int
    batches: int
    seed: int
    time_scale: float
    control_scale: float
    token_factor: int
    streams_rewards: bool
    folder: str
    flows: bool = False
    freezes: bool = False
    staleness: int = 0
    steps: int = 0
    ahead: int = 0
    is_bounded: bool = False
    slow_replicas: dict[int, float] = dataclasses.field(default_factory=dict)
    dead_replicas: tuple[int, ...] = ()
    trace: str = ""

    @cached_property
    def cluster(self) -> Profile:
        """The profile, with recorded lengths if there are any."""
        profile = load_profile(Path(self.profile))
        return follow_trace(profile, read_trace(Path(self.trace))) if self.trace else profile

    @cached_property
    def workload(self) -> Workload:
        """All batches' lengths and rewards: recorded, or as the planner draws them."""
        drawn = draw_workload(self.cluster, self.batches, self.seed)
        return take_lengths(drawn, read_trace(Path(self.trace)), self.seed) if self.trace else drawn

    @property
    def replicas(self) -> int:
        """Rollout replicas."""
        return self.rollout_gpus // self.cluster.sampling.tensor_parallel

    @property
    def speed(self) -> Speed:
        """Of each replica, as the planner has it."""
        return make_speed(self.cluster.sampling, self.slots, self.replicas)

    @property
    def journal(self) -> Path:
        """Where each process writes what it emulated."""
        return Path(self.folder) / "journal"

    def open_clock(self) -> EmulatedClock:
        """The run's clock, as the run's processes share it."""
        size = self.batches, self.cluster.sampling.trajectories
        times = open_times(self._times, *size, is_drained=not self.ahead)
        return EmulatedClock(self.time_scale, times, self.control_scale)

    @property
    def _times(self) -> Path:
        return Path(self.folder) / "times"

    @property
    def longest_response(self) -> int:
        """Tokens that verl handles of the longest response."""
        return self.compress(self.cluster.sampling.response_tokens.largest)

    def compress(self, tokens: float) -> int:
        """Tokens that verl handles of a response of ``tokens`` emulated ones."""
        return max(FEWEST_TOKENS, -int(-tokens // self.token_factor))

    def find_place(self, row: int, sample: int) -> tuple[int, int]:
        """Batch (from 0) and trajectory of a sample of a row of the data set."""
        sampling = self.cluster.sampling
        batch, prompt = divmod(row, sampling.prompts)
        return batch, prompt * sampling.samples + sample

    def find_places(self, rows: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for arrays; an index of what has an entry for each batch and trajectory."""
        sampling = self.cluster.sampling
        batches, prompts = np.divmod(rows, sampling.prompts)
        return batches, prompts * sampling.samples + samples

    def count_tokens(self, places: tuple[np.ndarray, np.ndarray]) -> float:
        """Emulated tokens, prompts included, of the trajectories at these places."""
        return float(self.workload.responses[places].sum() + self.workload.prompts[places].sum())

    def write(self, path: Path) -> None:
        """Write the run for its processes, and its clock, which stands at 0."""
        path.write_text(json.dumps(dataclasses.asdict(self)))
        size = self.batches, self.cluster.sampling.trajectories
        create_times(self._times, *size, self.time_scale)


def read_cluster(path: Path) -> EmulatedCluster:
    """Read what :meth:`EmulatedCluster.write` wrote."""
    content = json.loads(path.read_text())
    content["slow_replicas"] = {
        int(number): factor for number, factor in content["slow_replicas"].items()
    }
    content["dead_replicas"] = tuple(content["dead_replicas"])
    return EmulatedCluster(**content)


def check_size(profile: Profile) -> None:
    """Refuse a cluster that one machine's processes cannot hold.

    Raises:
        ProfileError: too many GPUs, or more samples of a prompt than two tokens can name.
    """
    if profile.gpus > MOST_GPUS:
        raise ProfileError(
            f"gpus={profile.gpus}: one process emulates all replicas, at most {MOST_GPUS} GPUs; "
            "give fewer"
        )
    if profile.sampling.samples > MOST_SAMPLES:
        raise ProfileError(
            f"sampling.samples={profile.sampling.samples}: the emulated responses tell at most "
            f"{MOST_SAMPLES} samples of a prompt apart; give fewer"
        )
