"""Which weight version sampled which tokens of an answer, and of a whole trajectory.

Spans stand in the order of the tokens. Between processes, in TransferQueue's tags and in
``extra_fields["version_spans"]`` they are ``[[version, tokens], ...]``.

Invariants:
* No span is empty, and no two neighbours have the same version.
* The tokens of the spans add up to those that were sampled; what tools wrote is not counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# The name of the spans in ``extra_fields`` and in the tags.
VERSION_SPANS = "version_spans"


@dataclass(frozen=True)
class VersionSpan:
    """Consecutive tokens of one version.

    Attributes:
        version: updates that the weights have had.
        tokens: how many; at least 1.
    """

    version: int
    tokens: int


@dataclass(frozen=True)
class VersionMark:
    """The place of a change of weights in an answer.

    Attributes:
        version: of the weights before it.
        tokens: tokens of the answer that had been sampled by then.
    """

    version: int
    tokens: int


def cut_spans(marks: Iterable[VersionMark], tokens: int, version: int) -> list[VersionSpan]:
    """The spans of an answer of ``tokens`` tokens, the last of which ``version`` sampled.

    Args:
        marks: the changes of weights while it was sampled, in order.
    """
    spans, begin = [], 0
    for mark in [*marks, VersionMark(version, tokens)]:
        spans.append(VersionSpan(mark.version, mark.tokens - begin))
        begin = mark.tokens
    return join_spans(spans)


def join_spans(spans: Iterable[VersionSpan]) -> list[VersionSpan]:
    """The same tokens in as few spans as possible."""
    joined: list[VersionSpan] = []
    for span in spans:
        if joined and joined[-1].version == span.version:
            joined[-1] = VersionSpan(span.version, joined[-1].tokens + span.tokens)
        elif span.tokens:
            joined.append(span)
    return joined


def parse_spans(value: Any) -> list[VersionSpan]:
    """Read ``[[version, tokens], ...]``; None, as of a server that tells no spans, has none.

    Raises:
        ValueError: it is something else; the message has it.
    """
    pairs = [] if value is None else value
    if not isinstance(pairs, Sequence) or not all(map(_is_pair, pairs)):
        raise ValueError(f"{VERSION_SPANS}={value!r}: must be [[version, tokens], ...]")
    return join_spans(VersionSpan(version, tokens) for version, tokens in pairs)


def dump_spans(spans: Iterable[VersionSpan]) -> list[list[int]]:
    """The spans as :func:`parse_spans` reads them."""
    return [[span.version, span.tokens] for span in spans]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(type(part) is int and part >= 0 for part in value)
    )
