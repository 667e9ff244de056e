"""Version spans (:mod:`verl_pipeline.trainer.version_spans`) as a text that a flat record can hold.

Invariant: what is no such text is no span; a reader never fails at it.
"""

import re
from collections.abc import Iterable

from verl_pipeline.trainer.version_spans import VersionSpan

_TEXT = re.compile(r"[0-9]{1,15}:[0-9]{1,15}( [0-9]{1,15}:[0-9]{1,15})*")


def format_spans(spans: Iterable[VersionSpan]) -> str:
    """As ``3:120 4:55``: 120 tokens of v_3, then 55 of v_4."""
    return " ".join(f"{span.version}:{span.tokens}" for span in spans)


def read_spans(text: str | None) -> list[list[int]] | None:
    """``[[version, tokens], ...]``; None if there is no such text."""
    if text is None or not _TEXT.fullmatch(text):
        return None
    return [[int(part) for part in pair.split(":")] for pair in text.split(" ")]
