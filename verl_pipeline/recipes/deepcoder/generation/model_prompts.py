"""What a model is asked for, and how its answer is read into a candidate.

Invariant: an answer that lacks a part is a rejection that names the part; nothing is repaired.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from verl_pipeline.evaluation.task import Message, make_conversation
from verl_pipeline.grading.fenced_blocks import read_fenced_blocks
from verl_pipeline.grading.program_extraction import extract_answer_text
from verl_pipeline.grading.readers.case_values import restore_integer_keys
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.program_runs import ProgramInput

# Function that a problem with call tests asks for.
ENTRY = "solve"
_HEADING = re.compile(
    r"^#{1,6}[ \t]+(Problem|Solution|Generator|Tests)[ \t]*:?[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_PARTS = ("problem", "solution", "generator", "tests")
_TASKS = {
    "evolve": (
        "Write a new programming problem that is harder than the one below: add a constraint, a "
        "second step or another structure of data, so that a solution needs another idea."
    ),
    "compose": (
        "Write a new programming problem that joins the ideas of the two below into one task. It "
        "must need both ideas; it must not be two tasks in a row."
    ),
    "translate": (
        "Write a new programming problem with the idea of the one below in another setting. The "
        "program must read standard input and print to standard output; say exactly in which form."
    ),
}
_FORMAT = f"""The answer to every input must be unique. Do not ask for floating-point numbers.

Answer with four parts, each under its heading:

### Problem
The statement: what is given (with its limits), what is asked, one example.

### Solution
A fenced Python block: a right and efficient solution, with the standard library only. It either
reads standard input and prints the result, or defines a function `{ENTRY}`.

### Generator
A fenced Python block that defines `generate_inputs(rng)`, where `rng` is a `random.Random`. It
returns one random valid input, small or large: the text on standard input as a string, or the
arguments of `{ENTRY}` as a list. All randomness must come from `rng`.

### Tests
A fenced JSON block: a list of at least three objects {{"input": ..., "output": ...}}, with inputs
as the generator returns them, edge cases first."""
_GENERATOR_FORMAT = """Below is a programming problem with a solution. Write a Python function
`generate_inputs(rng)`, where `rng` is a `random.Random`. It returns one random input that the
statement allows, among them edge cases and inputs on which a slightly wrong solution fails:
{returned}. All randomness must come from `rng`; use the standard library only. Answer with one
fenced Python block.
"""


def write_request(way: str, seeds: Sequence[str]) -> tuple[Message, ...]:
    """Return the conversation that asks for a new problem.

    Args:
        way: ``evolve``, ``compose`` or ``translate``.
        seeds: statements of one problem, or of two to compose.
    """
    texts = "\n\n".join(f"<seed>\n{seed.strip()}\n</seed>" for seed in seeds)
    return make_conversation(f"{_TASKS[way]}\n\n{texts}\n\n{_FORMAT}")


def write_generator_request(
    question: str, solution: str, entry_point: str | None
) -> tuple[Message, ...]:
    """Return the conversation that asks for an input generator of a known problem."""
    returned = (
        "the text on standard input as a string"
        if entry_point is None
        else f"the arguments of `{entry_point}` as a list"
    )
    fence = f"```python\n{solution.strip()}\n```"
    text = _GENERATOR_FORMAT.format(returned=returned)
    return make_conversation(f"{text}\n### Problem\n{question.strip()}\n\n### Solution\n{fence}")


def read_proposal(candidate_id: str, answer: str, way: str, seeds: Sequence[str]) -> Candidate:
    """Read the candidate of an answer to :func:`write_request`.

    Args:
        seeds: ids of the seed problems.

    Raises:
        Rejection: a part is missing or malformed.
    """
    parts = _split_parts(extract_answer_text(answer))
    solution, generator = (_read_block(parts, name) for name in ("solution", "generator"))
    given = _read_tests(_read_block(parts, "tests"))
    is_stdin = isinstance(given[0][0], str)
    return Candidate(
        id=candidate_id,
        question=parts["problem"],
        program=solution,
        generator=generator,
        entry_point=None if is_stdin else ENTRY,
        given=given,
        notes={"method": "model", "way": way, "seeds": list(seeds)},
    )


def _split_parts(text: str) -> dict[str, str]:
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    parts = {
        heading[1].lower(): text[heading.end() : end].strip()
        for heading, end in zip(headings, ends, strict=True)
    }
    for name in _PARTS:
        if not parts.get(name):
            raise Rejection("the model's answer lacks a part", name)
    return parts


def _read_block(parts: dict[str, str], name: str) -> str:
    block = next((one for one in read_fenced_blocks(parts[name]) if one.is_closed), None)
    if block is None or not block.text.strip():
        raise Rejection("the model's answer lacks a part", f"no fenced block under {name}")
    return block.text


def _read_tests(text: str) -> tuple[tuple[ProgramInput, Any], ...]:
    try:
        tests = json.loads(text)
        pairs = tuple((test["input"], test["output"]) for test in tests)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Rejection("the model's tests cannot be read", str(error)) from error
    kinds = {type(given) for given, _output in pairs}
    if not pairs or kinds not in ({str}, {list}):
        raise Rejection("the model's tests cannot be read", "inputs must be all texts or all lists")
    if kinds == {str}:
        if not all(isinstance(output, str) for _given, output in pairs):
            raise Rejection("the model's tests cannot be read", "an output that is no text")
        return pairs
    return tuple((tuple(map(restore_integer_keys, given)), output) for given, output in pairs)
