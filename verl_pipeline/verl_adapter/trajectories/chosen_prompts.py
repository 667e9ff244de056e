"""The prompts that a selector chooses, in the place of verl's data loader.

verl takes batches from it, saves its ``state_dict`` as the checkpoint's ``data.pt`` and loads that,
as it does with its own loader; :class:`.loader_positions.LoaderPositions` is what this stands for
in the trainer.

Invariants:
* The state holds the selector's, and the rows of every batch that has been chosen and not trained:
  a resumed run samples the same prompts again.
* Nothing is read ahead: a batch is chosen when it is submitted
  (:mod:`verl_pipeline.curriculum.curriculum`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import collate_fn

from verl_pipeline.curriculum.curriculum import Curriculum, CurriculumMismatch
from verl_pipeline.curriculum.outcomes import RewardOutOfRange, make_outcomes
from verl_pipeline.curriculum.settings import CurriculumSettings, make_selector
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.trainer.batch import TrajectoryBatch
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ConfigError, OneOffPipelineConfig
from verl_pipeline.trainer.trajectory_keys import parse_position
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import POSITION_FILE
from verl_pipeline.verl_adapter.trajectories.prompt_table import SELECTOR, read_prompt_table

CURRICULUM = "curriculum"


class ChosenPrompts:
    """See the module.

    Args:
        dataset: verl's training set.
        curriculum: over its rows.
        settings: ours.
        collate: makes a batch of rows of the data set.
    """

    def __init__(
        self,
        dataset: Any,
        curriculum: Curriculum,
        settings: CurriculumSettings,
        collate: Callable[[list[Any]], Any] = collate_fn,
    ):
        self._dataset, self._collate = dataset, collate
        self._curriculum, self._settings = curriculum, settings
        self._next = 1
        # In the state, in place of `_next`.
        self._resumes_at: int | None = None

    # ---- as verl's data loader ---------------------------------------------------------------

    def __iter__(self) -> "ChosenPrompts":
        return self

    def __next__(self) -> Any:
        rows = self._curriculum.propose(self._next)
        self._next += 1
        return self._collate([self._dataset[row] for row in rows.tolist()])

    def state_dict(self) -> dict[str, Any]:
        """Of all that later batches follow from."""
        resumes_at = self._next if self._resumes_at is None else self._resumes_at
        return {CURRICULUM: self._curriculum.state_dict(), "next": resumes_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: it is of another selector, or of another training set.
        """
        if fault := find_foreign_state(state, self._curriculum.selector.name):
            raise ConfigError(f"{SELECTOR}: the checkpoint {fault}")
        try:
            self._curriculum.load_state_dict(state[CURRICULUM])
        except CurriculumMismatch as error:
            raise ConfigError(f"{SELECTOR}: the checkpoint {error}") from error
        self._next = state["next"]

    # ---- as LoaderPositions ------------------------------------------------------------------

    def note(self, batch: int) -> None:
        """``batch`` is about to be taken.

        Raises:
            ConfigError: the run goes on from a checkpoint without what the selector had learnt.
        """
        if batch != self._next:
            raise ConfigError(
                f"{SELECTOR}: batch {batch} comes next, but the checkpoint has no {POSITION_FILE}, "
                f"which holds what the selector learnt; restore it, or set {SELECTOR}=null"
            )

    def forget(self, trained: int) -> None:
        """``trained`` is trained; :meth:`observe` has seen to it."""

    @contextmanager
    def stand_before(self, batch: int) -> Iterator[None]:
        """Inside, :meth:`state_dict` is that of a run that takes ``batch`` next."""
        self._resumes_at = batch
        try:
            yield
        finally:
            self._resumes_at = None

    # ---- outcomes ----------------------------------------------------------------------------

    def observe(self, k: int, batch: TrajectoryBatch) -> dict[str, float]:
        """What the trajectories of batch k earned.

        Returns:
            ``curriculum/*`` metrics.

        Raises:
            ConfigError: a reward is no pass rate.
        """
        view = batch.view.merge_sessions()
        oldest: dict[str, int] = {}
        for uid, version in zip(batch.view.uids, batch.version_spans[:, 0].tolist(), strict=True):
            oldest[uid] = min(oldest.get(uid, version), version)
        is_judged = np.array([verdict != INFRASTRUCTURE for verdict in view.verdicts], dtype=bool)
        try:
            outcomes = make_outcomes(
                self._curriculum.get_proposal(k),
                [parse_position(uid) for uid in view.uids],
                np.where(is_judged, view.rewards, np.nan),
                view.response_lengths,
                np.array([oldest[uid] for uid in view.uids], dtype=np.int64),
                self._settings.solved_at,
            )
        except RewardOutOfRange as error:
            raise ConfigError(f"{PIPELINE_KEY}.curriculum.{error}") from error
        return self._curriculum.observe(k, outcomes)


def choose_prompts(
    dataset: Any, config: DictConfig, settings: OneOffPipelineConfig
) -> ChosenPrompts | None:
    """What chooses the prompts of a run; None if verl's data loader does.

    Args:
        dataset: verl's training set.
        config: verl's.

    Raises:
        ConfigError: no selector can choose from this data set.
    """
    selector = make_selector(settings.curriculum)
    if selector is None:
        return None
    prompts, fingerprint = read_prompt_table(dataset, config.data)
    curriculum = Curriculum(
        selector,
        prompts,
        batch_size=config.data.train_batch_size,
        lag=settings.most_staleness,
        floor_share=settings.curriculum.floor_share,
        seed=config.data.get("seed") or 0,
        fingerprint=fingerprint,
    )
    return ChosenPrompts(dataset, curriculum, settings.curriculum)


def find_foreign_state(state: Any, selector: str | None) -> str | None:
    """What is wrong with resuming from the content of a ``data.pt``; None if nothing is.

    Args:
        state: of the data loader, or of :class:`ChosenPrompts`.
        selector: of the run; None if verl's data loader gives its batches.
    """
    is_ours = isinstance(state, Mapping) and CURRICULUM in state
    written_with = state[CURRICULUM]["selector"] if is_ours else None
    if written_with == selector:
        return None
    return (
        f"was written with {_describe(written_with)}, not with {_describe(selector)}: resume with "
        "what wrote it, or begin anew in another folder"
    )


def _describe(selector: str | None) -> str:
    return "no selector (null)" if selector is None else f"the selector {selector}"
