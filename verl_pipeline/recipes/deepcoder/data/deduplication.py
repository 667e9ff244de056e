"""Stage ``deduplicate``: keeps one of several duplicates, within and across data sources.

Invariant: the first duplicate stays, in the order of the sources in the settings, then of the rows.
"""

from collections.abc import Iterator

from verl_pipeline.recipes.deepcoder.data.near_duplicates import DuplicateIndex, TextGroup
from verl_pipeline.recipes.deepcoder.data.preparation_config import NearConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    RecordSet,
    RemovedRow,
)


def group_texts(records: RecordSet, words: int) -> dict[str, TextGroup]:
    """Return, for each data source, the group of its questions.

    Args:
        records: the records.
        words: length of a shingle in words.
    """
    questions: dict[str, dict[str, None]] = {}  # the inner dict is an ordered set
    for record in records:
        questions.setdefault(record.source, {})[record.question] = None
    return {source: TextGroup(list(distinct), words) for source, distinct in questions.items()}


def deduplicate_records(records: RecordSet, config: NearConfig) -> Iterator[Decision]:
    """Remove duplicates of earlier records; each removal names the record that stays."""
    groups = group_texts(records, config.words)
    index = DuplicateIndex(config.threshold, config.agreeing, config.permutations)
    for record in records:
        group = groups[record.source]
        sketch = group.build_sketch(record.id, record.question, record.read_problem())
        match = index.find_duplicate(sketch)
        if match is None:
            index.add_sketch(sketch)
            yield KeptRow(record.id, record.source)
            continue
        yield RemovedRow(
            record.id,
            record.source,
            f"{match.kind} duplicate",
            match.describe_match(),
            match.key,
            round(match.similarity, 4),
        )
