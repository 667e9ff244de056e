"""Which trajectory a row of tokens belongs to: the prompt's text names the row of the data set, the
first two letters of the response the sample.

Invariant: what a prompt and response tell does not depend on the mode, nor on how often the
response was interrupted.
"""

import re
from collections.abc import Sequence

# Ends a prompt in the chat template of Qwen's models.
_BEFORE_RESPONSE = "assistant\n"
_ROW = re.compile(r"row (\d+)")
_LETTERS = 26


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


def read_sample(text: str) -> int:
    """The sample that a response's text names."""
    first, second = (ord(letter) - ord("a") for letter in text[:2])
    return first * _LETTERS + second


class Alphabet:
    """Reads and writes tokens of a tokenizer that has one for each character.

    Args:
        texts: by token; "" for what is no text.
    """

    def __init__(self, texts: Sequence[str]):
        self._texts = texts
        self._tokens = {text: token for token, text in enumerate(texts) if text}

    def read_prompt(self, tokens: Sequence[int]) -> tuple[int, int | None]:
        """Row and, of a response that was interrupted, sample of a request's tokens.

        Args:
            tokens: of the prompt, and of what was generated before the interruption.
        """
        text = "".join(self._texts[token] for token in tokens)
        response = text.partition(_BEFORE_RESPONSE)[2]
        return read_row(text), read_sample(response) if response else None

    def make_response(self, sample: int, tokens: int) -> list[int]:
        """A response of ``tokens`` tokens, at least two."""
        named = [self._tokens[letter] for letter in name_sample(sample)]
        return named + [named[0]] * (tokens - 2)
