"""Stage ``decontaminate``: removes problems of evaluations from the training data.

A row is removed if it is an exact or near duplicate of an evaluation problem, or if it holds at
least a given share of the problem's n-grams of words. By the same count of n-grams
:mod:`verl_pipeline.evaluation.contamination` decides whether a problem was in the training data.

Invariant: an evaluation whose data cannot be found is an error or, if the settings say so, a
warning. It is never left out silently.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.task import TaskData
from verl_pipeline.evaluation.tasks import find_task
from verl_pipeline.number_formats import format_percent
from verl_pipeline.recipes.deepcoder.data.deduplication import group_texts
from verl_pipeline.recipes.deepcoder.data.near_duplicates import (
    COMMON_NUMBER,
    COMMON_SHARE,
    DuplicateIndex,
    TextGroup,
    extract_words,
    hash_shingles,
)
from verl_pipeline.recipes.deepcoder.data.preparation_config import ContaminationConfig, NearConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    ProblemRecord,
    RecordSet,
    RemovedRow,
)


@dataclass(frozen=True)
class EvaluationProblems:
    """Problems that must not be in the training data, by task.

    Attributes:
        loaded: the problems of each task whose data was found.
        warnings: one message for each task whose data was not found.
    """

    loaded: dict[str, TaskData]
    warnings: tuple[str, ...]

    def list_digests(self) -> dict[str, str]:
        """Return the digest of each task's data."""
        return {name: loaded.digest for name, loaded in self.loaded.items()}


def load_evaluations(config: ContaminationConfig, finder: DataFinder) -> EvaluationProblems:
    """Load the problems of ``contamination.tasks``.

    Raises:
        DataNotFound: the data of a task was not found, and ``contamination.missing`` is ``refuse``.
        BadSetting: a task has no such option.
    """
    loaded: dict[str, TaskData] = {}
    warnings: list[str] = []
    if others := config.options.keys() - set(config.tasks):
        raise BadSetting(
            f"contamination.options.{sorted(others)[0]}: not one of contamination.tasks; add it "
            "there, or remove its options"
        )
    for name in config.tasks:
        task = find_task(name)
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
                    f"contamination.tasks: {name}: {error}. Without this data, problems of {name} "
                    "cannot be removed: leave it out of contamination.tasks, or set "
                    "contamination.missing=warn"
                ) from error
            warnings.append(f"NOT DECONTAMINATED against {name}: {error}")
    return EvaluationProblems(loaded, tuple(warnings))


def decontaminate_records(
    records: RecordSet,
    evaluations: EvaluationProblems,
    config: ContaminationConfig,
    near: NearConfig,
) -> Iterator[Decision]:
    """Remove records that are or contain an evaluation problem; each removal names the problem."""
    index = DuplicateIndex(config.threshold, config.agreeing, near.permutations)
    grams = _GramIndex(config.gram)
    for task, loaded in evaluations.loaded.items():
        texts = [
            " \n".join(message["content"] for message in item.messages) for item in loaded.items
        ]
        keys = [f"{task}/{item.id}" for item in loaded.items]
        group = TextGroup(list(dict.fromkeys(texts)), near.words)
        for key, text, item in zip(keys, texts, loaded.items, strict=True):
            index.add_sketch(group.build_sketch(key, text, item.problem))
        grams.add_task(keys, texts)
    groups = group_texts(records, near.words)
    for record in records:
        sketch = groups[record.source].build_sketch(
            record.id, record.question, record.read_problem()
        )
        match = index.find_duplicate(sketch)
        if match:
            yield RemovedRow(
                record.id,
                record.source,
                f"{match.kind} duplicate of an evaluation problem",
                match.describe_match(),
                match.key,
                round(match.similarity, 4),
            )
        else:
            yield _check_contained(record, grams, config)


def _check_contained(
    record: ProblemRecord, grams: "_GramIndex", config: ContaminationConfig
) -> Decision:
    share, key = grams.find_contained(record.question)
    if key is None or share < config.share:
        return KeptRow(record.id, record.source)
    return RemovedRow(
        record.id,
        record.source,
        "contains an evaluation problem",
        f"holds {format_percent(share, 0)} of the problem's {config.gram}-grams",
        key,
        round(share, 4),
    )


class _GramIndex:
    """N-grams of evaluation problems.

    Args:
        length: length of an n-gram in words.
    """

    def __init__(self, length: int):
        self._length = length
        self._numbers_by_gram: dict[int, list[int]] = {}
        self._problems: list[tuple[str, int]] = []  # key, number of distinct n-grams

    def add_task(self, keys: list[str], texts: list[str]) -> None:
        """Add the problems of one task, without the n-grams that are instructions of the task."""
        grams_by_text = [self._hash_grams(text) for text in texts]
        common = _find_common_grams(grams_by_text)
        for key, all_grams in zip(keys, grams_by_text, strict=True):
            own_grams = [gram for gram in all_grams if gram not in common]
            for gram in own_grams:
                self._numbers_by_gram.setdefault(gram, []).append(len(self._problems))
            self._problems.append((key, len(own_grams)))

    def find_contained(self, text: str) -> tuple[float, str | None]:
        """Return the largest share of a problem's n-grams that the text holds, and the problem."""
        counts = Counter(
            number
            for gram in self._hash_grams(text)
            for number in self._numbers_by_gram.get(gram, ())
        )
        if not counts:
            return 0.0, None
        # Of equal shares the first problem counts, so that the result does not depend on hashes.
        shares = [(count / self._problems[number][1], -number) for number, count in counts.items()]
        share, negative_number = max(shares)
        return share, self._problems[-negative_number][0]

    def _hash_grams(self, text: str) -> list[int]:
        return hash_shingles(extract_words(text), self._length).tolist()


def _find_common_grams(grams_by_text: list[list[int]]) -> set[int]:
    """Return the n-grams that so many problems of a task share that they are instructions."""
    counts = Counter(gram for grams in grams_by_text for gram in grams)
    limit = max(COMMON_NUMBER, COMMON_SHARE * len(grams_by_text))
    return {gram for gram, count in counts.items() if count > limit}
