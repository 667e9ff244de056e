"""Keys of prompts and trajectories; a key tells where its row stands in the data loader's order.

Invariants:
* The prompt at position p of batch k is ``b<k>p<p>``. verl names its trajectories
  ``<prompt>_<session>_<index>``: session i is the i-th sample of the prompt's group, and an agent
  loop may return several rows (index) for one session.
* Sorting by :func:`make_loader_sort_key` gives the data loader's order, whatever finished first.
* A resumed run uses the same keys as an uninterrupted one.
"""

import re

_PROMPT_KEY = re.compile(r"b(\d+)p(\d+)")


def make_prompt_key(batch: int, position: int) -> str:
    """Key of the prompt at ``position`` (from 0) of ``batch`` (from 1)."""
    return f"b{batch}p{position}"


def parse_batch(key: str) -> int | None:
    """Batch of a prompt or trajectory key; None for keys that are not ours (validation)."""
    match = _PROMPT_KEY.fullmatch(parse_prompt(key))
    return int(match.group(1)) if match else None


def parse_position(key: str) -> int:
    """Position in its batch of a prompt or trajectory of ours."""
    match = _PROMPT_KEY.fullmatch(parse_prompt(key))
    assert match is not None, f"{key} is no key of a batch"
    return int(match.group(2))


def parse_prompt(key: str) -> str:
    """Prompt key of a prompt or trajectory key."""
    return key.split("_", 1)[0]


def parse_session(key: str) -> int:
    """Session (member of the group) of a trajectory key."""
    return int(key.rsplit("_", 2)[1])


def make_loader_sort_key(key: str) -> tuple:
    """Sort key of trajectories: batch and position of the prompt, then session, then index."""
    prompt, session, index = key.rsplit("_", 2)
    match = _PROMPT_KEY.fullmatch(prompt)
    position = (int(match.group(1)), int(match.group(2))) if match else (prompt,)
    return (*position, int(session), int(index))
