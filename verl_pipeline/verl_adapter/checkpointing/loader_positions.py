"""Where the data loader stood before each batch that has been submitted and not trained.

A checkpoint that waits for nobody is written while batches are sampled. What is not complete is not
in it: the resumed run takes those prompts from the data loader again, which has to stand before
them.

Invariant: the loader itself never moves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchdata.stateful_dataloader import StatefulDataLoader


class LoaderPositions:
    """Positions of one data loader."""

    def __init__(self, loader: StatefulDataLoader):
        self._loader = loader
        self._states: dict[int, dict[str, Any]] = {}

    def note(self, batch: int) -> None:
        """The loader is about to give ``batch``."""
        self._states[batch] = self._loader.state_dict()

    def forget(self, trained: int) -> None:
        """No checkpoint will go back to ``trained`` or an earlier batch."""
        self._states = {batch: self._states[batch] for batch in self._states if batch > trained}

    @contextmanager
    def stand_before(self, batch: int) -> Iterator[None]:
        """Inside, the loader's ``state_dict()``, which verl saves, is that before ``batch``.

        A batch that was not noted has not been given yet.
        """
        state = self._states.get(batch)
        if state is None:
            yield
            return
        self._loader.state_dict = lambda: state  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._loader.__dict__["state_dict"]
