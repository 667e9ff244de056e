"""What an examination of the machine or the installation found.

Invariant: whatever is missing comes with its fix.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How one thing that was examined is."""

    OK = "ok"
    # It works, but something is weaker or slower than it could be.
    LIMITED = "note"
    MISSING = "NO"


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        topic: what it is, in a few words.
        detail: what was found.
        fix: what to do about it; may be empty if nothing is missing.
        consequence: what does not work, or works less well, without it.
    """

    topic: str
    state: State
    detail: str
    fix: str = ""
    consequence: str = ""

    @property
    def ok(self) -> bool:
        """Whether a run can start."""
        return self.state is not State.MISSING
