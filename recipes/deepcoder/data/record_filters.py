"""The stages that look at one record at a time: ``language``, ``tests``, and the choice of the
held-out part.

Invariant: what is decided of a record depends on that record and the settings, for ``split`` also
on the ids beside it.
"""

import hashlib
from collections.abc import Iterator

from recipes.deepcoder.data.preparation_config import SplitConfig, TestsConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Records, Removed
from verl_pipeline.evaluation.config import BadSetting

_PYTHON = ("python", "python3", "py")


def language(records: Records) -> Iterator[Decision]:
    """Python only, of rows whose source names a language."""
    for record in records:
        if record.language is None or record.language.casefold() in _PYTHON:
            yield Kept(record.id, record.source)
        else:
            yield Removed(record.id, record.source, "another language", record.language)


def tests(records: Records, config: TestsConfig) -> Iterator[Decision]:
    """At least ``tests.min`` tests."""
    for record in records:
        if record.test_count >= config.min:
            yield Kept(record.id, record.source)
        else:
            yield Removed(
                record.id,
                record.source,
                f"fewer than {config.min} tests",
                f"{record.test_count} (tests.min)",
            )


def split(records: Records, config: SplitConfig, seed: int) -> Iterator[Decision]:
    """``split.heldout`` records, those with the smallest hash of seed and id, are not trained on.

    Raises:
        BadSetting: nothing would be left to train on.
    """
    if config.heldout >= len(records):
        raise BadSetting(
            f"split.heldout={config.heldout}: {len(records)} problems are left, so none would be "
            "left to train on; set it lower"
        )
    order = sorted(
        records.kept, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    )
    heldout = set(order[: config.heldout])
    for record in records:
        yield Kept(
            record.id, record.source, {"split": "heldout" if record.id in heldout else "train"}
        )
