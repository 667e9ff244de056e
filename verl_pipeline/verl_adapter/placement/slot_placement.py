"""Which node holds which group of slots.

Invariants:
* Nothing here talks to Ray.
* Groups that some order of placement can hold are placed.
* The same groups on the same nodes get the same places, so that a resumed run finds its ranks where
  they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# States that are looked at for each group before the search counts as too long.
_LONGEST_SEARCH = 100
# Device and CPU slots of a node; the groups placed so far with what is left on each node.
_Slots = tuple[float, float]
_State = tuple[int, tuple[_Slots, ...]]


@dataclass(frozen=True)
class SlotRequest:
    """``count`` groups of slots, each on one node.

    Attributes:
        who: what asks, with the setting that makes it ask for less.
        cpus: CPU slots of one group.
        devices: device slots of one group.
        in_turn: group after group on the next node, whatever is free there.
        pool: the pool of devices that the groups make up; "" for processes.
    """

    who: str
    count: int
    cpus: int
    devices: int = 0
    in_turn: bool = False
    pool: str = ""


@dataclass(frozen=True)
class NodeSlots:
    """Slots of one node; ``name`` is its address, ``node_id`` Ray's id of it."""

    name: str
    cpus: float
    devices: float
    node_id: str = ""

    def can_hold(self, request: SlotRequest) -> bool:
        """Whether one group of ``request`` fits."""
        return self.cpus >= request.cpus and self.devices >= request.devices

    def take(self, request: SlotRequest) -> "NodeSlots":
        """What is left after one group of ``request``."""
        return replace(self, cpus=self.cpus - request.cpus, devices=self.devices - request.devices)


@dataclass(frozen=True)
class Place:
    """A group of ``request`` on ``node``; None: on whichever Ray finds."""

    request: SlotRequest
    node: NodeSlots | None


@dataclass(frozen=True)
class NoPlace:
    """No order of placement holds all groups: at best all before the ``number``-th of ``request``,
    the largest groups first."""

    request: SlotRequest
    number: int

    def describe(self, device: str) -> str:
        """Which group has no place, in words."""
        slots = describe_slots(self.request.cpus, self.request.devices, device)
        return f"part {self.number} of {self.request.count} of the {self.request.who} ({slots})"


def place_groups(
    requests: Sequence[SlotRequest], nodes: Sequence[NodeSlots]
) -> list[Place] | NoPlace:
    """A node for each group, the largest groups first, each on the tightest node that can take it.

    So the trainer, whose groups are the largest of a size, gets whole nodes, and the replicas are
    packed on what it leaves. A search that is too long leaves the choice to Ray.
    """
    groups = [request for request in requests for _ in range(request.count)]
    groups.sort(key=lambda request: (request.devices, request.cpus), reverse=True)
    first = (0, tuple(sorted((node.devices, node.cpus) for node in nodes)))
    # By state: the state before, and the slots of the node that took the last group.
    before: dict[_State, tuple[_State, _Slots] | None] = {first: None}
    open_states, furthest = [first], 0
    longest = _LONGEST_SEARCH * (len(groups) + 1)
    while open_states and len(before) < longest:
        state = open_states.pop()
        placed, free = state
        furthest = max(furthest, placed)
        if placed == len(groups):
            return _retrace(state, before, groups, nodes)
        for taken, left in _place_group(groups[placed], free):
            following = (placed + 1, left)
            if following not in before:
                before[following] = (state, taken)
                open_states.append(following)
    if open_states:
        return [Place(group, None) for group in groups]
    stuck = groups[furthest]
    return NoPlace(stuck, groups[: furthest + 1].count(stuck))


def _retrace(
    state: _State,
    before: dict[_State, tuple[_State, _Slots] | None],
    groups: Sequence[SlotRequest],
    nodes: Sequence[NodeSlots],
) -> list[Place]:
    """The places on the way to ``state``; of nodes with the same slots, the first by address."""
    taken = []
    while step := before[state]:
        state, slots = step
        taken.append(slots)
    left = sorted(nodes, key=lambda node: (node.name, node.node_id))
    places = []
    for group, slots in zip(groups, reversed(taken), strict=True):
        rank = next(i for i, node in enumerate(left) if (node.devices, node.cpus) == slots)
        places.append(Place(group, left[rank]))
        left[rank] = left[rank].take(group)
    return places


def _place_group(
    group: SlotRequest, free: tuple[_Slots, ...]
) -> Iterator[tuple[_Slots, tuple[_Slots, ...]]]:
    """Slots of a node that could take the group, and what is left; the tightest node comes last."""
    for devices, cpus in sorted(set(free), reverse=True):
        if devices >= group.devices and cpus >= group.cpus:
            left = list(free)
            left.remove((devices, cpus))
            left.append((devices - group.devices, cpus - group.cpus))
            yield (devices, cpus), tuple(sorted(left))


def describe_slots(cpus: float, devices: float, device: str) -> str:
    """``2 CPU``, or ``2 CPU + 1 GPU``."""
    return f"{cpus:g} CPU" + (f" + {devices:g} {device}" if devices else "")
