"""The settings of ``trainer.v1.one_off_pipeline.curriculum``, and the refusal of wrong ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from verl_pipeline.curriculum.protocol import Selector
from verl_pipeline.curriculum.registry import load_selector
from verl_pipeline.number_formats import format_percent


@dataclass
class CurriculumSettings:
    """Which prompts each batch has."""

    # Who chooses: null (verl's data loader, as if there were no curriculum), "uniform" (the same
    # order, with the metrics), "learnability", "similar", a class path, or a mapping of name and
    # settings, as in {name: learnability, half_life: 100}.
    selector: Any = None
    # Share of the places that go to the prompts that have waited longest, whatever the selector
    # wants: no prompt waits longer than prompts / (floor_share * batch) batches.
    floor_share: float = 0.1
    # The reward from which on an answer counts as solved: a prompt's pass rate is then the share of
    # such answers. null: it is the mean reward, and every reward has to lie in [0, 1].
    solved_at: float | None = None


def find_wrong_curriculum(settings: CurriculumSettings, key: str) -> Iterator[str]:
    """One line for each value that cannot be.

    Args:
        key: the section of these settings.
    """
    if not 0 < settings.floor_share <= 1:
        yield (
            f"{key}.floor_share={settings.floor_share}: must be above 0, so that no prompt "
            "starves, and at most 1"
        )
    if settings.selector is not None:
        try:
            load_selector(settings.selector)
        except ValueError as error:
            yield f"{key}.selector: {error}"


def make_selector(settings: CurriculumSettings) -> Selector | None:
    """The selector of settings that are not wrong; None without one."""
    return None if settings.selector is None else load_selector(settings.selector)


def describe_curriculum(settings: CurriculumSettings) -> str:
    """In a few words, who chooses the prompts of settings that are not wrong."""
    selector = make_selector(settings)
    if selector is None:
        return "the data loader's, in its order"
    if selector.covers_all:
        return f"chosen by {selector.name}"
    share = format_percent(settings.floor_share, 0)
    return f"chosen by {selector.name}; {share} of the places go to those that have waited longest"
