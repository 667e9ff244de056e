"""Stage ``decontaminate``: what an evaluation asks is not trained on.

A row goes if its text is that of an evaluation's problem, exactly or nearly, or if it holds at
least a share of the problem's n-grams of words, which is by what
:mod:`verl_pipeline.evaluation.contamination` counts a problem as seen.

Invariant: an evaluation whose data cannot be found is refused, or, if the settings say so, warned
of; never left out in silence.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from recipes.deepcoder.data.deduplication import groups_of
from recipes.deepcoder.data.near_duplicates import (
    COMMON_NUMBER,
    COMMON_SHARE,
    Group,
    Index,
    shingles_of,
    words_of,
)
from recipes.deepcoder.data.preparation_config import ContaminationConfig, NearConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Records, Removed
from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.data import DataNotFound, Finder
from verl_pipeline.evaluation.task import Loaded
from verl_pipeline.evaluation.tasks import task_of


@dataclass(frozen=True)
class Evaluations:
    """The problems that must not be trained on, by task, and what could not be found."""

    loaded: dict[str, Loaded]
    warnings: tuple[str, ...]

    def settings(self) -> dict[str, str]:
        """What the outcome depends on: the hash of each task's data."""
        return {name: loaded.digest for name, loaded in self.loaded.items()}


def load_evaluations(config: ContaminationConfig, finder: Finder) -> Evaluations:
    """The problems of ``contamination.tasks``.

    Raises:
        DataNotFound: a task's data is not there, and ``contamination.missing`` is ``refuse``.
        BadSetting: an option is not one of its task's.
    """
    loaded: dict[str, Loaded] = {}
    warnings: list[str] = []
    if others := config.options.keys() - set(config.tasks):
        raise BadSetting(
            f"contamination.options.{sorted(others)[0]}: not one of contamination.tasks"
        )
    for name in config.tasks:
        task = task_of(name)
        options = {**task.options, **(config.options.get(name) or {})}
        if unknown := options.keys() - task.options.keys():
            raise BadSetting(
                f"contamination.options.{name}.{sorted(unknown)[0]}: {name} has no such option"
            )
        try:
            loaded[name] = task.load(finder, **options)
        except DataNotFound as error:
            if config.missing == "refuse":
                raise DataNotFound(
                    f"contamination.tasks: {name}: {error}. Without it rows that {name} asks cannot"
                    " be removed: leave it out of contamination.tasks, or set "
                    "contamination.missing=warn"
                ) from error
            warnings.append(f"NOT DECONTAMINATED against {name}: {error}")
    return Evaluations(loaded, tuple(warnings))


def decontaminate(
    records: Records, evaluations: Evaluations, config: ContaminationConfig, near: NearConfig
) -> Iterator[Decision]:
    """Each removal names the evaluation's problem."""
    index = Index(config.threshold, config.agreeing, near.permutations)
    grams: dict[int, list[int]] = {}
    asked: list[tuple[str, int]] = []
    for task, loaded in evaluations.loaded.items():
        texts = [
            " \n".join(message["content"] for message in item.messages) for item in loaded.items
        ]
        group = Group(list(dict.fromkeys(texts)), near.words)
        own = [shingles_of(words_of(text), config.gram).tolist() for text in texts]
        common = _common(own)
        for item, text, all_grams in zip(loaded.items, texts, own, strict=True):
            key = f"{task}/{item.id}"
            index.add(group.sketch(key, text, item.problem))
            distinct = [gram for gram in all_grams if gram not in common]
            for gram in distinct:
                grams.setdefault(gram, []).append(len(asked))
            asked.append((key, len(distinct)))
    groups = groups_of(records, near.words)
    for record in records:
        twin = index.twin(
            groups[record.source].sketch(record.id, record.question, record.problem())
        )
        if twin:
            near_text = (
                f"words: similarity {twin.similarity:.2f}"
                if twin.kind == "near"
                else "the same words"
            )
            reason = f"{twin.kind} twin of an evaluation"
            yield Removed(
                record.id, record.source, reason, near_text, twin.key, round(twin.similarity, 4)
            )
            continue
        text_grams = shingles_of(words_of(record.question), config.gram)
        held = Counter(number for gram in text_grams.tolist() for number in grams.get(gram, ()))
        shares = [(count / asked[number][1], -number) for number, count in held.items()]
        share, number = max(shares, default=(0.0, 0))
        if share < config.share:
            yield Kept(record.id, record.source)
            continue
        detail = f"holds {share:.0%} of the problem's {config.gram}-grams"
        yield Removed(
            record.id,
            record.source,
            "contains an evaluation's problem",
            detail,
            asked[-number][0],
            round(share, 4),
        )


def _common(texts: list[list[int]]) -> set[int]:
    """What is in so many problems of a task that it is instruction."""
    counts = Counter(gram for grams in texts for gram in grams)
    limit = max(COMMON_NUMBER, COMMON_SHARE * len(texts))
    return {gram for gram, count in counts.items() if count > limit}
