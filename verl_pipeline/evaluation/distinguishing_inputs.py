"""Inputs on which the programs of a problem may differ, made from what its prompt shows.

Invariants:
* Hidden tests have no part in the inputs: seeds are the examples that the prompt may show
  (``Problem.public``), calls with literal arguments in the prompt's text, or, without any, values
  of the common types for as many parameters as the programs themselves have.
* The inputs depend only on the problem and on the programs, so that another call makes the same.
"""

import ast
import random
import re
import statistics
from collections.abc import Sequence
from typing import Any

from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading import AssertTest, CallTest, StdinTest

# Values for a parameter of which nothing is known: numbers, texts and lists of both, with edges.
COMMON_VALUES: tuple[tuple[Any, ...], ...] = (
    (0, 1, 2, 3, 7, 10, -1, -5, 12, 100),
    ("a", "", "abc", "Hello World", "level", "a1b2", "  x "),
    ([1, 2, 3], [], [3, 1, 2, 2], [-1, 0, 5], [10], [4, 4, 1, 9, 7]),
    (["b", "a"], [], ["abc", "x", "abc"]),
)
MAX_PARAMETERS = 6
# Calls of a problem with several functions; more are not looked for.
_CALL_CHARACTERS = 2000


def find_entry_point(item: TaskItem) -> str | None:
    """Return the function that a program of ``item`` must define; None for standard input."""
    problem = item.problem
    assert problem is not None
    first = problem.tests[0]
    if isinstance(first, StdinTest):
        return None
    return problem.entry_point or (first.names[0] if isinstance(first, AssertTest) else None)


def make_inputs(item: TaskItem, programs: Sequence[str], count: int) -> list[Any]:
    """Return at most ``count`` different inputs, those of the prompt first.

    Returns:
        Texts for standard input, or tuples of positional arguments; empty if the prompt has no
        example of standard input.
    """
    problem = item.problem
    assert problem is not None
    generator = random.Random(f"{problem.source}/{item.id}")
    shown = problem.tests[: problem.public]
    entry_point = find_entry_point(item)
    seeds: list[Any] = [test.input for test in shown if isinstance(test, StdinTest)]
    if entry_point is not None:
        seeds = [test.args for test in shown if isinstance(test, CallTest)]
        text = "\n".join(message["content"] for message in item.messages)
        seeds += _list_calls(text, entry_point)
        if not seeds and (arity := _find_arity(programs, entry_point)):
            # All parameters of one type, and of any types: a list and a number, for instance.
            mixed = [sum(COMMON_VALUES, ())] * (2 * len(COMMON_VALUES) if arity > 1 else 0)
            seeds = [
                tuple(generator.choice(values) for _ in range(arity))
                for values in (*COMMON_VALUES, *COMMON_VALUES, *mixed)
            ]
    inputs = {repr(seed): seed for seed in seeds[:count]}
    # Few seeds have few different variants: so many draws are enough.
    for _ in range(20 * count if seeds else 0):
        if len(inputs) >= count:
            break
        seed = generator.choice(seeds)
        made = _vary_text(seed, generator) if entry_point is None else _vary(seed, generator)
        inputs.setdefault(repr(made), made)
    return list(inputs.values())


def _list_calls(text: str, name: str) -> list[tuple[Any, ...]]:
    """Return the arguments of calls ``name(...)`` in ``text`` whose arguments are literals."""
    calls = []
    for match in re.finditer(rf"\b{re.escape(name)}\(", text):
        rest = text[match.start() : match.start() + _CALL_CHARACTERS]
        for end in (place.end() for place in re.finditer(r"\)", rest)):
            try:
                node = ast.parse(rest[:end], mode="eval").body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            if isinstance(node, ast.Call) and not node.keywords:
                try:
                    calls.append(tuple(ast.literal_eval(argument) for argument in node.args))
                except (ValueError, TypeError):  # a signature, or a call of another call
                    pass
            break
    return [arguments for arguments in calls if arguments]


def _find_arity(programs: Sequence[str], name: str) -> int:
    """Return the number of parameters that most programs give the function; 0 if none has it."""
    arities = []
    for program in programs:
        try:
            nodes = list(ast.walk(ast.parse(program)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
                arities.append(len([one for one in names if one != "self"]))
    return min(statistics.mode(arities), MAX_PARAMETERS) if arities else 0


def _vary(arguments: tuple[Any, ...], generator: random.Random) -> tuple[Any, ...]:
    place = generator.randrange(len(arguments))
    changed = list(arguments)
    changed[place] = _vary_value(changed[place], generator)
    return tuple(changed)


def _vary_value(value: Any, generator: random.Random) -> Any:
    """Return a value of the same type near ``value``, or an edge case of the type."""
    match value:
        case bool():
            return not value
        case int():
            return generator.choice(
                (value + 1, value - 1, -value, 0, value * 2, generator.randint(-20, 100))
            )
        case float():
            return generator.choice((-value, value + 0.5, value * 2, 0.0))
        case str():
            letters = [*(value or "ab")]
            changed = generator.choice(
                ("", value[::-1], value + generator.choice(letters), value[1:], value.swapcase())
            )
            return generator.choice((changed, "".join(generator.sample(letters, len(letters)))))
        case list() | tuple():
            return type(value)(_vary_members(list(value), generator))
        case set() | frozenset():
            return type(value)(_vary_members(sorted(value, key=repr), generator))
        case dict() if value:
            key = generator.choice(list(value))
            return value | {key: _vary_value(value[key], generator)}
    return value


def _vary_members(members: list[Any], generator: random.Random) -> list[Any]:
    if not members:
        return members
    place = generator.randrange(len(members))
    match generator.randrange(5):
        case 0:
            return members[:place] + members[place + 1 :]
        case 1:
            return [*members, generator.choice(members)]
        case 2:
            return generator.sample(members, len(members))
        case 3:
            return members[::-1]
    return [*members[:place], _vary_value(members[place], generator), *members[place + 1 :]]


def _vary_text(text: str, generator: random.Random) -> str:
    """Change one number or word of an input, and rarely one of its first line, which often counts
    the rest.
    """
    words = list(re.finditer(r"\S+", text))
    first_line_end = text.find("\n") if "\n" in text.strip() else -1
    if len(words) > 1 and generator.random() < 0.8:
        words = [word for word in words if word.start() > first_line_end] or words
    if not words:
        return text
    word = generator.choice(words)
    try:
        changed = str(_vary_value(int(word[0]), generator))
    except ValueError:
        changed = _vary_value(word[0], generator) or word[0][:1]
    return text[: word.start()] + changed + text[word.end() :]
