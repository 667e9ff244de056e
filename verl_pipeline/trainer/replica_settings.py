"""The settings of a pool that replicas leave and join, and the refusal of those that make none.

Invariant: a refusal names the field, its value and what to set instead, in one line.
"""

from collections.abc import Iterator


def find_wrong_replicas(
    least: int, most: int | None, slow_factor: float | None, key: str
) -> Iterator[str]:
    """One line for each value that cannot be.

    Args:
        least, most, slow_factor: ``min_replicas``, ``max_replicas`` and ``slow_factor``.
        key: of our settings.
    """
    if least < 1:
        yield f"{key}.min_replicas={least}: must be 1 or more"
    if most is not None and most < max(least, 1):
        yield (
            f"{key}.max_replicas={most}: must be {key}.min_replicas={least} or more, or null for "
            "as many as the run starts with"
        )
    if slow_factor is not None and not slow_factor > 1.0:
        yield (
            f"{key}.slow_factor={slow_factor}: must be more than 1, or null to let every replica "
            "be as slow as it is"
        )
