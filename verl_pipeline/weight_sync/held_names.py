"""Which of a rollout engine's parameters holds which tensors that a trainer sends. No torch.

Trainers send tensors by their names in Hugging Face's format. An engine renames them, fuses some
(q, k and v into one projection) and stacks experts.

Invariants:
* A tensor that was sent lies in one place, or in none (``unheld``).
* A place whose parts cannot be told apart is compared as a whole; nothing is guessed.
* A parameter counts as unsent only if no tensor without a place may lie in it under another name.
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
        unsent: the engine's parameters that nothing sent can lie in.
    """

    places: dict[str, Place]
    unheld: list[str]
    unsent: list[str]


@dataclass(frozen=True)
class _Part:
    """A module of a checkpoint as a part of a fused one."""

    name: str
    module: str
    position: int
    count: int


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
        rename: the engine's own name for a name, in which parts may be replaced by the fused module
            already; None if the engine drops it.
    """
    parts = {
        name: _Part(name, module, position, len(names))
        for module, names in fused.items()
        if len(names) > 1
        for position, name in enumerate(names)
    }
    places: dict[str, Place] = {}
    unheld, homeless = [], []
    for name in sent:
        renamed = rename(name) or ""
        part = next((parts[word] for word in reversed(name.split(".")) if word in parts), None)
        fused_name = _replace(renamed, part) if part else ""
        expert_name = _replace_expert(renamed, experts)
        if part is not None and fused_name in held:
            place = places.setdefault(fused_name, Place(parts=[None] * part.count))
            place.parts[part.position] = name
        elif renamed in held:
            place = places.setdefault(renamed, Place())
        elif expert_name in held:
            place = places.setdefault(expert_name, Place(is_expert=True))
        else:
            unheld.append(name)
            homeless.append(renamed)
            continue
        place.tensors.append(name)
    unsent = [
        name
        for name in held
        if name not in places and not any(_may_lie_in(other, name) for other in homeless)
    ]
    return Placement(places, unheld, unsent)


def _replace(renamed: str, part: _Part) -> str:
    """The name with the fused module in it; "" if it names neither that nor the part."""
    words = renamed.split(".")
    if part.name in words:
        return ".".join(part.module if word == part.name else word for word in words)
    return renamed if part.module in words else ""


def _replace_expert(renamed: str, experts: Mapping[str, str]) -> str:
    match = _EXPERT.search(renamed)
    if match is None or match.group() not in experts:
        return ""
    return renamed[: match.start()] + experts[match.group()] + renamed[match.end() :]


def _may_lie_in(name: str, place: str) -> bool:
    """Whether the two share a module, or the part of a layer that holds it."""
    module = name.split(".")[:-1]
    is_in_layer = any(word.isdigit() for word in module[:-1])
    around = [module, module[:-1]] if is_in_layer else [module]
    return any(words and place.startswith(".".join(words) + ".") for words in around)
