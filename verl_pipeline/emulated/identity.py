"""Which trajectory a row of tokens belongs to: the prompt's text names the row of the data set, the
first two tokens of the response the sample.

Invariant: what a prompt and response tell does not depend on the mode, nor on how often the
response was interrupted.
"""

import re

from verl_pipeline.testing.tiny_run import decode

_ROW = re.compile(r"row (\d+)")
_LETTERS = 26
# By character, its token. The tokenizer has one token a character.
_TOKENS = {text: token for token in range(128) if (text := decode([token]))}
_FILLER = _TOKENS["a"]


def make_prompt(row: int) -> str:
    """The prompt of a row."""
    return f"row {row}: answer"


def read_row(text: str) -> int:
    """The row that a prompt's text names.

    Raises:
        ValueError: it names none: it is no prompt of an emulated run.
    """
    if found := _ROW.search(text):
        return int(found[1])
    raise ValueError(f"an emulated run takes prompts of its own data set only, not {text[:60]!r}")


def name_sample(sample: int) -> str:
    """Two letters, with which the responses of a sample begin."""
    first, second = divmod(sample, _LETTERS)
    return chr(ord("a") + first) + chr(ord("a") + second)


def make_response(sample: int, tokens: int) -> list[int]:
    """A response of ``tokens`` tokens, at least two."""
    return [_TOKENS[letter] for letter in name_sample(sample)] + [_FILLER] * (tokens - 2)


def read_sample(text: str) -> int:
    """The sample that a response's text names."""
    first, second = (ord(letter) - ord("a") for letter in text[:2])
    return first * _LETTERS + second


def read_prompt(tokens: list[int]) -> tuple[int, int | None]:
    """Row and, of a response that was interrupted, sample of a request's tokens.

    Args:
        tokens: of the prompt, and of what was generated before the interruption.
    """
    text = decode(tokens)
    response = text.partition("assistant\n")[2]
    return read_row(text), read_sample(response) if response else None
