"""Compares the fingerprints of what a trainer sent with those of what a replica holds. No torch.

Invariants:
* Equal is what is equal bit for bit in the rollout's dtype; there is no tolerance.
* What cannot be compared is reported as unchecked, with the reason; it never counts as equal.
* Sharding and copies never look like a difference: the digests of all ranks of a replica add up to
  the trainer's digest, once for each copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verl_pipeline.weight_sync.fingerprint import TensorSum

MODULUS = 1 << 64


class WeightsDiffer(RuntimeError):
    """A replica does not hold the weights that the trainer has."""


@dataclass(frozen=True)
class HeldPart:
    """What one rank of a replica holds of some tensors.

    Attributes:
        place: the engine's name of the parameter.
        tensors: names that were sent and lie in it.
        digest, total, dtype: as :class:`~verl_pipeline.weight_sync.fingerprint.TensorSum`.
    """

    place: str
    tensors: tuple[str, ...]
    digest: int
    total: float
    dtype: str


@dataclass(frozen=True)
class RankReading:
    """What one rank of a replica answers.

    Attributes:
        parts: what it holds.
        unchecked: by tensor that was sent, why this rank cannot compare it.
        unheld: tensors that were sent and that this rank has no parameter for.
        unsent: its parameters of more than one element that hold nothing that was sent.
    """

    parts: list[HeldPart]
    unchecked: dict[str, str] = field(default_factory=dict)
    unheld: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """One replica against the trainer.

    Attributes:
        checked: tensors that are equal.
        unchecked: by tensor, why it was not compared.
        differences: sentences, one for each place that differs.
    """

    checked: set[str]
    unchecked: dict[str, str]
    differences: list[str]


def parse_reading(answer: Mapping[str, Any]) -> RankReading:
    """The answer of one rank, which consists of lists, texts and numbers only.

    Args:
        answer: the fields of :class:`RankReading`; a part is a list of place, tensors, digest as
            hexadecimal text (an integer of vLLM's messages has 64 bits with a sign), total, dtype.
    """
    return RankReading(
        parts=[
            HeldPart(place, tuple(tensors), int(digest, 16), total, dtype)
            for place, tensors, digest, total, dtype in answer["parts"]
        ],
        unchecked=dict(answer["unchecked"]),
        unheld=list(answer["unheld"]),
        unsent=list(answer["unsent"]),
    )


def compare_weights(
    sent: Mapping[str, "TensorSum"], readings: Sequence[RankReading], *, starts_random: bool
) -> Comparison:
    """Compare what was sent with the readings of all ranks of one replica.

    Args:
        starts_random: whether the engine starts with random weights (``load_format=dummy``), so
            that a parameter that nobody sends is wrong for certain.
    """
    differences = [
        f"{name}: the trainer sent the frozen base of a LoRA, and its adapter does not travel"
        for name in sent
        if ".base_layer." in name
    ][:1]
    groups: dict[tuple[str, tuple[str, ...]], list[HeldPart]] = {}
    unchecked: dict[str, str] = {}
    for reading in readings:
        unchecked.update(reading.unchecked)
        for part in reading.parts:
            groups.setdefault((part.place, part.tensors), []).append(part)
    checked: set[str] = set()
    for (place, tensors), parts in groups.items():
        if any(name in unchecked for name in tensors):
            continue
        dtypes = {part.dtype for part in parts} | {sent[name].dtype for name in tensors}
        if len(dtypes) > 1:
            reason = f"held and sent in different dtypes ({', '.join(sorted(dtypes))})"
            unchecked.update(dict.fromkeys(tensors, reason))
            continue
        expected = sum(sent[name].digest for name in tensors) % MODULUS
        found = sum(part.digest for part in parts) % MODULUS
        copies = _count_copies(found, expected, len(parts))
        if copies is None:
            differences.append(_describe(place, tensors, parts, sent))
        else:
            checked.update(tensors)
    places = {name for _place, tensors in groups for name in tensors}
    for reading in readings:
        for name in reading.unheld:
            if name not in places:
                unchecked.setdefault(name, "the engine has no parameter of its own for it")
    unsent = sorted({name for reading in readings for name in reading.unsent})
    if starts_random and unsent:
        differences.append(
            f"{unsent[0]}{_and_more(len(unsent))}: the trainer sent nothing for it, and the engine "
            "started with random weights (rollout.load_format=dummy)"
        )
    return Comparison(checked - unchecked.keys(), unchecked, differences)


def _count_copies(found: int, expected: int, ranks: int) -> int | None:
    """How many copies of ``expected`` add up to ``found``; None if none up to ``ranks`` does."""
    for copies in range(1, ranks + 1):
        if (copies * expected) % MODULUS == found:
            return copies
    return None


def _describe(
    place: str,
    tensors: tuple[str, ...],
    parts: Sequence[HeldPart],
    sent: Mapping[str, "TensorSum"],
) -> str:
    total = sum(sent[name].total for name in tensors)
    held = ", ".join(f"{part.total:.9g}" for part in parts)
    ranks = "" if len(parts) == 1 else f" on {len(parts)} ranks"
    digests = ", ".join(f"{part.digest:016x}" for part in parts)
    expected = sum(sent[name].digest for name in tensors) % MODULUS
    return (
        f"{tensors[0]}{_and_more(len(tensors))}: the trainer sent elements of sum {total:.9g} and "
        f"digest {expected:016x}, {place} holds {held} and {digests}{ranks}"
    )


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
