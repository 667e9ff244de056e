"""Which problems of an evaluation are in the data that the model was trained on.

A problem counts as seen if at least half of its 13-grams of words (GPT-3's length: Brown et al.
2020, appendix C) are in the training prompts. What most problems of the task have in common, the
instructions, is left aside.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from verl_pipeline.evaluation.data import BadData, read_rows
from verl_pipeline.evaluation.task import Item, Message

WORDS, SHARE = 13, 0.5


def seen(items: Sequence[Item], train_data: Iterable[str]) -> list[str]:
    """Ids of the problems that are in parquet files of verl's schema.

    Raises:
        BadData: a file cannot be read, or has no ``prompt``.
    """
    files = list(train_data)
    if not files:
        return []
    own = {item.id: _grams(_text(item.messages)) for item in items}
    frequency = Counter(gram for grams in own.values() for gram in grams)
    common = (
        {gram for gram, count in frequency.items() if count > len(items) / 2}
        if len(items) > 2
        else set()
    )
    wanted = frequency.keys() - common
    found: set[str] = set()
    for file in files:
        for row in read_rows(Path(file)):
            if "prompt" not in row:
                raise BadData(f"train_data={file}: rows have no prompt; verl's schema is needed")
            try:
                found |= _grams(_text(row["prompt"])) & wanted
            except (TypeError, KeyError) as error:
                raise BadData(
                    f"train_data={file}: prompt is no list of messages: {error!r}"
                ) from error
    shares = {name: len(grams & found) / max(1, len(grams - common)) for name, grams in own.items()}
    return [name for name, share in shares.items() if share >= SHARE]


def _text(messages: Iterable[Message]) -> str:
    return " ".join(message["content"] for message in messages)


def _grams(text: str) -> set[str]:
    """All runs of so many words; of a shorter text the whole."""
    words = re.findall(r"\w+", text.casefold())
    return {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
