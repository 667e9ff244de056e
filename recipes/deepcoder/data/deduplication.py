"""Stage ``deduplicate``: one of several twins stays, within and across sources.

Invariant: the twin that stays is the first, in the order of the sources in the settings, then of
the rows.
"""

from collections.abc import Iterator

from recipes.deepcoder.data.near_duplicates import Group, Index
from recipes.deepcoder.data.preparation_config import NearConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Records, Removed


def groups_of(records: Records, words: int) -> dict[str, Group]:
    """What the texts of each source have in common."""
    texts: dict[str, dict[str, None]] = {}
    for record in records:
        texts.setdefault(record.source, {})[record.question] = None
    return {source: Group(list(different), words) for source, different in texts.items()}


def deduplicate(records: Records, config: NearConfig) -> Iterator[Decision]:
    """Each removal names the twin that stays."""
    groups = groups_of(records, config.words)
    index = Index(config.threshold, config.agreeing, config.permutations)
    for record in records:
        sketch = groups[record.source].sketch(record.id, record.question, record.problem())
        twin = index.twin(sketch)
        if twin is None:
            index.add(sketch)
            yield Kept(record.id, record.source)
            continue
        near = (
            f"words: similarity {twin.similarity:.2f}" if twin.kind == "near" else "the same words"
        )
        yield Removed(
            record.id,
            record.source,
            f"{twin.kind} duplicate",
            near,
            twin.key,
            round(twin.similarity, 4),
        )
