"""Which splits of a cluster into two pools verl can place."""

from dataclasses import dataclass

from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError

# More are thinned out evenly.
MOST_SPLITS = 16


@dataclass(frozen=True)
class Split:
    """GPUs of the two pools, as nodes x GPUs in each."""

    rollout_nodes: int
    rollout_per_node: int
    trainer_nodes: int
    trainer_per_node: int

    @property
    def rollout_gpus(self) -> int:
        return self.rollout_nodes * self.rollout_per_node

    @property
    def trainer_gpus(self) -> int:
        return self.trainer_nodes * self.trainer_per_node


def count_nodes(profile: Profile) -> int:
    """The fewest equal nodes that the GPUs make up."""
    fewest = -(-profile.gpus // profile.gpus_per_node)
    return next(nodes for nodes in range(fewest, profile.gpus + 1) if profile.gpus % nodes == 0)


def list_splits(profile: Profile) -> list[Split]:
    """Splits by rising rollout GPUs: whole nodes for each pool, or the same share of every node.

    A replica stays within a node unless it takes whole nodes.
    """
    nodes = count_nodes(profile)
    per_node = profile.gpus // nodes
    parallel = profile.sampling.tensor_parallel
    found = {}
    for part in range(1, per_node):
        if part % parallel == 0:
            found[nodes * part] = Split(nodes, part, nodes, per_node - part)
    for rollout in range(1, nodes):
        gpus = rollout * per_node
        if gpus % parallel == 0 and (per_node % parallel == 0 or parallel % per_node == 0):
            found[gpus] = Split(rollout, per_node, nodes - rollout, per_node)
    splits = [
        found[gpus]
        for gpus in sorted(found)
        if found[gpus].trainer_gpus >= profile.training.fewest_gpus
    ]
    return thin_splits(splits, MOST_SPLITS)


def thin_splits(splits: list[Split], most: int) -> list[Split]:
    """At most ``most`` of the splits, evenly spaced, the first and the last among them."""
    if len(splits) <= most:
        return splits
    last = len(splits) - 1
    return [splits[round(place * last / (most - 1))] for place in range(most)]


def read_split(profile: Profile, text: str) -> Split:
    """Return the split ``rollout:trainer``, as ``4:12``.

    Raises:
        ProfileError: it is none, or verl cannot place it.
    """
    try:
        rollout, trainer = map(int, text.split(":"))
    except ValueError:
        raise ProfileError(f"--split {text}: must be rollout and trainer GPUs, as 4:12") from None
    for split in list_splits(profile):
        if (split.rollout_gpus, split.trainer_gpus) == (rollout, trainer):
            return split
    possible = ", ".join(f"{s.rollout_gpus}:{s.trainer_gpus}" for s in list_splits(profile))
    raise ProfileError(
        f"--split {text}: impossible with gpus={profile.gpus}, gpus_per_node="
        f"{profile.gpus_per_node}, sampling.tensor_parallel={profile.sampling.tensor_parallel}, "
        f"training.fewest_gpus={profile.training.fewest_gpus}; possible: {possible or 'none'}"
    )
