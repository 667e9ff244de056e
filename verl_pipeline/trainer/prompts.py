"""Names of prompts and trajectories: where a row stands in the data loader's order can be read off
its name.

Invariants:
* The prompt at position p of batch k is ``b<k>p<p>``; verl names its trajectories
  ``<prompt>_<session>_<index>``.
* Sorting by :func:`order` gives the data loader's order, whatever finished first.
* Names are equal in a resumed and an uninterrupted run.
"""

import re

_UID = re.compile(r"b(\d+)p(\d+)")


def make_uid(batch: int, position: int) -> str:
    """Name of the prompt at ``position`` (from 0) of ``batch`` (from 1)."""
    return f"b{batch}p{position}"


def batch_of(key: str) -> int | None:
    """The batch that a prompt or trajectory belongs to; None for names that are not ours
    (validation).
    """
    match = _UID.fullmatch(prompt_of(key))
    return int(match.group(1)) if match else None


def prompt_of(key: str) -> str:
    """The prompt's name, of a prompt's or a trajectory's key."""
    return key.split("_", 1)[0]


def session_of(key: str) -> int:
    """The session (member of the group) that a trajectory's key belongs to."""
    return int(key.rsplit("_", 2)[1])


def order(key: str) -> tuple:
    """Sort key of trajectories: position of the prompt, then session, then index within the
    session.
    """
    uid, session, index = key.rsplit("_", 2)
    match = _UID.fullmatch(uid)
    prompt = (int(match.group(1)), int(match.group(2))) if match else (uid,)
    return (*prompt, int(session), int(index))
