"""Caveats: what a reader must know before using a score.

Invariants:
* A caveat travels with its number: it is computed once (:mod:`caveat_rules`), stored with the task
  in ``results.json``, and every output of a score shows it (tests/unit/evaluation/test_caveats.py).
* A score with a barring caveat is not the benchmark's: every output gives it another name
  (:func:`mark_name`), and no ``model-index`` of the hub gets it.
* Caveats of a kind that this version does not know are kept, and bar.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CaveatKind:
    """A kind of caveat.

    Attributes:
        meaning: what the kind says of a score.
        bars: whether such a score is not the benchmark's.
        label: marks the name of the score, as in ``humaneval@rlimits``; empty: the name says it
            already, or the kind does not bar.
        is_loud: whether the score may say nothing about the model: the console shows it in red.
    """

    meaning: str
    bars: bool = False
    label: str = ""
    is_loud: bool = False


KINDS: Mapping[str, CaveatKind] = {
    # The problems are not the benchmark's.
    "limited": CaveatKind("only the first problems (limit)", True, "limited"),
    "other_size": CaveatKind("more or fewer problems than the benchmark", True, "other-size"),
    "options": CaveatKind("task options that choose other problems", True, "options"),
    "bad_rows": CaveatKind("rows of the data could not be read", True, "bad-rows"),
    "incomplete": CaveatKind("samples are missing or ungraded", True, "incomplete"),
    "validation_split": CaveatKind("a split for choosing checkpoints", True),
    # The model, or its answers, are not what the score seems to measure.
    "preset_answers": CaveatKind("preset answers instead of a model", True, "preset"),
    "other_weights": CaveatKind("the weights are not those of the model", True, "other-weights"),
    "contaminated": CaveatKind("problems are in the training data", True, "contaminated"),
    "chosen_on_test": CaveatKind("checkpoints are chosen on a test split", True, "chosen"),
    "dropped_parameters": CaveatKind("the server refuses parameters", True, "dropped"),
    # The grader is not the benchmark's.
    "degraded_tier": CaveatKind("programs ran without isolation", True, "rlimits"),
    "remote_tier": CaveatKind("programs ran on a server of unknown speed", True, "remote"),
    "upper_bound": CaveatKind("the tests are too few", True, "upper-bound"),
    "training_reward": CaveatKind("graded by a training's own reward", True, "training-reward"),
    # Unknown.
    "unrecorded": CaveatKind("written before caveats were recorded", True, "unrecorded"),
    "unknown": CaveatKind("of a kind that this version does not know", True, "unknown"),
    # The score holds, with these settings and limits.
    "no_answers": CaveatKind("nearly no sample held an answer", is_loud=True),
    "sampling": CaveatKind("sampling parameters differ from the task's"),
    "prompt": CaveatKind("the prompt differs from the task's"),
    "rope_scaling": CaveatKind("the model's positions are scaled"),
    "truncated": CaveatKind("responses were cut off"),
    "trained_length": CaveatKind("responses are longer than in training"),
    "unknown_weights": CaveatKind("the hash of the weights is unknown"),
    "server_limits": CaveatKind("the server does not return all that is measured"),
    "unmatched_answers": CaveatKind("answers of the file and problems do not match"),
    "second_round": CaveatKind("the second round is incomplete"),
    "no_rating": CaveatKind("there is no rating"),
    "data_note": CaveatKind("a limit of the data"),
}


@dataclass(frozen=True)
class Caveat:
    """A caveat of one score.

    Attributes:
        kind: a key of :data:`KINDS`.
        text: the caveat, for readers; one line.
        label: replaces the kind's label, e.g. ``first16``.

    Raises:
        KeyError: there is no such kind.
    """

    kind: str
    text: str
    label: str = ""

    def __post_init__(self):
        if not self.label:
            object.__setattr__(self, "label", KINDS[self.kind].label)

    @property
    def bars(self) -> bool:
        """Whether the score is not the benchmark's."""
        return KINDS[self.kind].bars

    @property
    def is_loud(self) -> bool:
        """Whether the score may say nothing about the model."""
        return KINDS[self.kind].is_loud

    def as_dict(self) -> dict[str, Any]:
        """Return the form that ``results.json`` has."""
        return {"kind": self.kind, "text": self.text, "label": self.label, "bars": self.bars}


def read_caveats(task: Mapping[str, Any]) -> list[Caveat]:
    """Return the caveats of a task's entry in ``results.json``."""
    return [
        Caveat(row["kind"] if row["kind"] in KINDS else "unknown", row["text"], row["label"])
        for row in task["caveats"]
    ]


def mark_name(name: str, caveats: Iterable[Caveat]) -> str:
    """Return a task's name or title, marked if the score is not the benchmark's.

    ``humaneval`` with a limit of 16 in the tier rlimits becomes ``humaneval@first16@rlimits``. The
    name is safe for verl's trackers, whose own metrics have such names (``mean@8``).
    """
    labels = dict.fromkeys(caveat.label for caveat in caveats if caveat.bars and caveat.label)
    return "@".join((name, *labels))


def list_barring(caveats: Iterable[Caveat]) -> list[Caveat]:
    """Return the caveats for which a score is not the benchmark's."""
    return [caveat for caveat in caveats if caveat.bars]


def sort_caveats(caveats: Iterable[Caveat]) -> Sequence[Caveat]:
    """Return the caveats, those that bar first."""
    return sorted(caveats, key=lambda caveat: not caveat.bars)
