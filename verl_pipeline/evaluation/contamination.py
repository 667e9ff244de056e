"""Finds the problems of an evaluation that are also in the training data.

A problem is contaminated if the training prompts contain at least half of its 13-grams of words
(GPT-3's length: Brown et al. 2020, appendix C). N-grams that most problems of the task share are
ignored: they belong to the task's instructions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from verl_pipeline.evaluation.data import BadData, find_named_files, read_rows
from verl_pipeline.evaluation.task import Message, TaskItem

NGRAM_WORDS = 13
MIN_SHARED_NGRAMS = 0.5  # as a share of the problem's n-grams


def find_contaminated_problems(items: Sequence[TaskItem], train_data: Iterable[str]) -> list[str]:
    """Return the ids of the problems that occur in the training files, in the order of ``items``.

    Args:
        items: problems of one task.
        train_data: data files, or patterns of them, with verl's column ``prompt``, a list of
            messages.

    Raises:
        DataNotFound: there is no such file.
        BadData: a file cannot be read, or has no ``prompt``.
    """
    files = find_named_files(list(train_data), "train_data")
    if not files:
        return []
    by_problem = {item.id: _collect_ngrams(_join_messages(item.messages)) for item in items}
    frequency = Counter(ngram for ngrams in by_problem.values() for ngram in ngrams)
    # With one or two problems nothing tells instructions from the problems' own words.
    shared = (
        {ngram for ngram, count in frequency.items() if count > len(items) / 2}
        if len(items) > 2
        else set()
    )
    searched = frequency.keys() - shared
    training_ngrams: set[str] = set()
    for file in files:
        for row in read_rows(file):
            if "prompt" not in row:
                raise BadData(
                    f"train_data={file}: a row has no prompt; name a file in verl's schema"
                )
            try:
                training_ngrams |= _collect_ngrams(_join_messages(row["prompt"])) & searched
            except (TypeError, KeyError) as error:
                raise BadData(
                    f"train_data={file}: prompt is not a list of messages: {error!r}"
                ) from error
    shares = {
        name: len(ngrams & training_ngrams) / max(1, len(ngrams - shared))
        for name, ngrams in by_problem.items()
    }
    return [name for name, share in shares.items() if share >= MIN_SHARED_NGRAMS]


def _join_messages(messages: Iterable[Message]) -> str:
    return " ".join(message["content"] for message in messages)


def _collect_ngrams(text: str) -> set[str]:
    """Return all runs of :data:`NGRAM_WORDS` words; for a shorter text, the whole text."""
    words = re.findall(r"\w+", text.casefold())
    starts = range(max(1, len(words) - NGRAM_WORDS + 1))
    return {" ".join(words[start : start + NGRAM_WORDS]) for start in starts}
