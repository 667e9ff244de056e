"""New inputs from known ones: of the same types, within the same ranges, with the same relations.

Nothing tells what a statement allows but its known inputs. A derived input therefore stays within
what they show: the range of every number, the alphabet and length of texts and lists, whether lists
are sorted or without repetitions, and which number is the length of which list.

Invariants:
* The inputs depend only on the known ones, the number and the seed.
* On standard input, only numbers change that stand at the same place in every known input and are
  no count of tokens or lines.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.recipes.deepcoder.generation.program_runs import ProgramInput

# Attempts per input that is wanted: many give one that is known already.
_ATTEMPTS = 6
_ORDERED = (int, float, str)
_INTEGER = re.compile(r"-?\d{1,18}")


def derive_inputs(known: Sequence[ProgramInput], number: int, seed: str) -> list[ProgramInput]:
    """Return at most ``number`` distinct inputs that are not known.

    Args:
        known: texts on standard input, or arguments.
    """
    chance = random.Random(f"inputs {seed}")
    draw: Callable[[], ProgramInput | None]
    if isinstance(known[0], str):
        draw = _make_text_source([one for one in known if isinstance(one, str)], chance)
    else:
        draw = _make_call_source([one for one in known if isinstance(one, tuple)], chance)
    seen = {json.dumps(one) for one in known}
    inputs: list[ProgramInput] = []
    for _ in range(_ATTEMPTS * number):
        if len(inputs) == number:
            break
        one = draw()
        if one is not None and (text := json.dumps(one)) not in seen:
            seen.add(text)
            inputs.append(one)
    return inputs


@dataclass(frozen=True)
class _Shape:
    """What all examples of a value have in common.

    Attributes:
        examples: the values.
        kind: their type; None: of several, or one that is only ever repeated.
        low, high: range of numbers, or of lengths.
        members: shape of the members of lists.
        alphabet: characters of texts.
        is_sorted, is_distinct: of lists.
    """

    examples: tuple[Any, ...]
    kind: type | None
    low: Any = 0
    high: Any = 0
    members: "_Shape | None" = None
    alphabet: str = ""
    is_sorted: bool = False
    is_distinct: bool = False


def _find_shape(examples: Sequence[Any]) -> _Shape:
    kinds = {type(one) for one in examples}
    kind = kinds.pop() if len(kinds) == 1 else None
    values = tuple(examples)
    if kind in (int, float):
        return _Shape(values, kind, min(values), max(values))
    if kind is str:
        lengths = [len(one) for one in values]
        alphabet = "".join(sorted({character for one in values for character in one}))
        return _Shape(
            values, kind if alphabet else None, min(lengths), max(lengths), None, alphabet
        )
    if kind is list:
        lengths = [len(one) for one in values]
        members = [member for one in values for member in one]
        if not members:
            return _Shape(values, None)
        inner = _find_shape(members)
        return _Shape(
            values,
            kind,
            min(lengths),
            max(lengths),
            inner,
            "",
            # Members of several types have no order, though each list may be sorted.
            inner.kind in _ORDERED and max(lengths) > 1 and all(map(_is_sorted, values)),
            all(len({json.dumps(member) for member in one}) == len(one) for one in values),
        )
    return _Shape(values, None)


def _is_sorted(values: list[Any]) -> bool:
    return all(one <= other for one, other in zip(values, values[1:], strict=False))


def _draw(shape: _Shape, chance: random.Random, length: int | None = None) -> Any:
    """Draw a value of a shape; ``length`` is that of a list or text, if it must be one."""
    if shape.kind is int:
        # Ends of the range and small numbers show more faults than the middle does.
        if chance.random() < 0.3:
            return chance.choice([shape.low, shape.high, *shape.examples])
        return chance.randint(shape.low, shape.high)
    if shape.kind is float:
        return round(chance.uniform(shape.low, shape.high), 2)
    if shape.kind is str:
        size = chance.randint(shape.low, shape.high) if length is None else length
        return "".join(chance.choice(shape.alphabet) for _ in range(size))
    if shape.kind is list and shape.members is not None:
        size = chance.randint(shape.low, shape.high) if length is None else length
        return _draw_list(shape, size, chance)
    return chance.choice(shape.examples)


def _draw_list(shape: _Shape, size: int, chance: random.Random) -> list[Any]:
    assert shape.members is not None
    members: list[Any] = []
    seen: set[str] = set()
    inner = shape.members
    # The rows of a matrix have one length.
    is_matrix = inner.kind is list and all(
        len({len(row) for row in one}) <= 1 for one in shape.examples
    )
    width = chance.randint(inner.low, inner.high) if is_matrix else None
    for _ in range(_ATTEMPTS * size):
        if len(members) == size:
            break
        member = _draw(inner, chance, width)
        text = json.dumps(member)
        if not shape.is_distinct or text not in seen:
            seen.add(text)
            members.append(member)
    return sorted(members) if shape.is_sorted else members


def _make_call_source(
    known: list[tuple[Any, ...]], chance: random.Random
) -> Callable[[], tuple[Any, ...] | None]:
    """Return a function that draws arguments; it returns None if it finds none."""
    count = len(known[0])
    if any(len(one) != count for one in known) or not count:
        return lambda: None
    shapes = [_find_shape([one[position] for one in known]) for position in range(count)]
    lengths = _find_lengths(known, count)

    def draw() -> tuple[Any, ...]:
        if chance.random() < 0.5:
            arguments = [_draw(shape, chance) for shape in shapes]
        else:  # a known input with one other argument
            arguments = list(chance.choice(known))
            position = chance.randrange(count)
            arguments[position] = _draw(shapes[position], chance)
        return _keep_lengths(arguments, shapes, lengths, chance)

    return draw


@dataclass(frozen=True)
class _Lengths:
    """Relations that all known inputs keep.

    Attributes:
        equal: pairs of positions of lists or texts of equal length.
        counts: pairs of a number and the list or text whose length it is.
        bounded: pairs of a number and the list or text whose length it never exceeds.
    """

    equal: tuple[tuple[int, int], ...]
    counts: tuple[tuple[int, int], ...]
    bounded: tuple[tuple[int, int], ...]


def _find_lengths(known: list[tuple[Any, ...]], count: int) -> _Lengths:
    sized = [at for at in range(count) if all(isinstance(one[at], list | str) for one in known)]
    numbers = [at for at in range(count) if all(type(one[at]) is int for one in known)]
    pairs = [(number, at) for number in numbers for at in sized]
    return _Lengths(
        tuple(
            (a, b)
            for a in sized
            for b in sized
            if a < b and all(len(one[a]) == len(one[b]) for one in known)
        ),
        tuple((n, at) for n, at in pairs if all(one[n] == len(one[at]) for one in known)),
        tuple((n, at) for n, at in pairs if all(0 <= one[n] <= len(one[at]) for one in known)),
    )


def _keep_lengths(
    arguments: list[Any], shapes: list[_Shape], lengths: _Lengths, chance: random.Random
) -> tuple[Any, ...]:
    for first, other in lengths.equal:
        if len(arguments[first]) != len(arguments[other]):
            arguments[other] = _draw(shapes[other], chance, len(arguments[first]))
    for number, at in lengths.bounded:
        arguments[number] = min(arguments[number], len(arguments[at]))
    for number, at in lengths.counts:
        arguments[number] = len(arguments[at])
    return tuple(arguments)


def _make_text_source(known: list[str], chance: random.Random) -> Callable[[], str | None]:
    """Return a function that draws a known text with other numbers; None if nothing may change."""
    tables = [[line.split() for line in text.splitlines()] for text in known]
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for row, line in enumerate(tables[0]):
        for column, _token in enumerate(line):
            if (span := _find_span(tables, row, column)) is not None:
                places[row, column] = span

    def draw() -> str | None:
        if not places:
            return None
        table = [list(line) for line in chance.choice(tables)]
        for place in chance.sample(sorted(places), min(len(places), chance.randint(1, 3))):
            table[place[0]][place[1]] = str(chance.randint(*places[place]))
        return "".join(f"{' '.join(line)}\n" for line in table)

    return draw


def _find_span(tables: list[list[list[str]]], row: int, column: int) -> tuple[int, int] | None:
    """Return the range of the number at a place of every text, or None if it must not change."""
    numbers: list[int] = []
    for table in tables:
        if row >= len(table) or column >= len(table[row]):
            return None
        token = table[row][column]
        if not _INTEGER.fullmatch(token):
            return None
        numbers.append(int(token))
    counts = [
        {len(table) - row - 1, *(len(line) for line in table[row + 1 : row + 3])}
        for table in tables
    ]
    if all(number in count for number, count in zip(numbers, counts, strict=True)):
        return None
    return min(numbers), max(numbers)
