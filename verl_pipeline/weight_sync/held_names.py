"""Which of a rollout engine's parameters holds which tensors that a trainer sends. No torch.

Trainers send tensors by their names in Hugging Face's format. An engine renames them, fuses some
(q, k and v into one projection) and stacks experts.

Invariants:
* A tensor that was sent lies in one place, or in none (``unheld``).
* A place whose parts cannot be told apart is compared as a whole; nothing is guessed.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_EXPERT = re.compile(r"experts\.\d+\.\w+\.(?:base_layer\.)?")


@dataclass
class Place:
    """One parameter of the engine.

    Attributes:
        tensors: names that were sent and lie in it.
        parts: by part of a fused parameter, in its order, the name that was sent or None; empty for
            a parameter that is not fused.
        is_expert: whether it stacks the experts of a layer.
    """

    tensors: list[str] = field(default_factory=list)
    parts: list[str | None] = field(default_factory=list)
    is_expert: bool = False


@dataclass(frozen=True)
class Placement:
    """Where the tensors lie.

    Attributes:
        places: by name of the engine's parameter.
        unheld: tensors that were sent and have no place.
        unsent: the engine's parameters that hold nothing that was sent.
    """

    places: dict[str, Place]
    unheld: list[str]
    unsent: list[str]


def place_tensors(
    sent: Iterable[str],
    held: Collection[str],
    *,
    fused: Mapping[str, Sequence[str]],
    experts: Mapping[str, str],
    rename: Callable[[str], str | None],
) -> Placement:
    """Find the place of each tensor.

    Args:
        sent: names of the tensors.
        held: names of the engine's parameters.
        fused: by module of the engine, the modules that it fuses, in order
            (``{"qkv_proj": ["q_proj", "k_proj", "v_proj"]}``).
        experts: by part of a name that belongs to one expert, the part that replaces it
            (``{"experts.0.gate_proj.": "experts.w13_"}``).
        rename: the engine's own name for a name; None if the engine drops it.
    """
    fused_by_part = {
        part: (module, position, len(parts))
        for module, parts in fused.items()
        if len(parts) > 1
        for position, part in enumerate(parts)
    }
    places: dict[str, Place] = {}
    unheld = []
    for name in sent:
        renamed = rename(name)
        if renamed is None:
            unheld.append(name)
            continue
        if renamed in held:
            places.setdefault(renamed, Place()).tensors.append(name)
            continue
        fused_name, position, count = _find_fused(renamed, fused_by_part)
        expert_name = _find_expert(renamed, experts)
        if fused_name in held:
            place = places.setdefault(fused_name, Place(parts=[None] * count))
            place.tensors.append(name)
            place.parts[position] = name
        elif expert_name in held:
            place = places.setdefault(expert_name, Place(is_expert=True))
            place.tensors.append(name)
        else:
            unheld.append(name)
    return Placement(places, unheld, [name for name in held if name not in places])


def _find_fused(name: str, fused_by_part: Mapping[str, tuple[str, int, int]]):
    words = name.split(".")
    for index in reversed(range(len(words))):
        if words[index] in fused_by_part:
            module, position, count = fused_by_part[words[index]]
            return ".".join([*words[:index], module, *words[index + 1 :]]), position, count
    return "", 0, 0


def _find_expert(name: str, experts: Mapping[str, str]) -> str:
    match = _EXPERT.search(name)
    if match is None or match.group() not in experts:
        return ""
    return name[: match.start()] + experts[match.group()] + name[match.end() :]
