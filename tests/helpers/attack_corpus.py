"""Reads the attack corpus: the programs of ``tests/attacks`` and their index.

Invariants:
* Index and folder agree, or nothing is returned: every program has one entry, every entry has a
  program.
* No program is imported or executed here: its source is text.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from tests.helpers.attack_problems import PROBLEMS
from verl_pipeline.sandbox.launch_command import Tier

CORPUS_FOLDER = Path(__file__).parents[1] / "attacks"
INDEX_NAME = "index.toml"


class CorpusError(ValueError):
    """Index and folder disagree, or an entry is wrong; the message lists all problems."""


@dataclass(frozen=True)
class AttackFamily:
    """A folder of programs.

    Attributes:
        name: of the folder.
        aim: what its programs have in common.
        burdens_machine: its programs burden the machine or their sandbox, so a right program is
            graded at the same time.
        leaves_traces: its programs leave something for later programs, or try to, so a spy runs
            next on the same worker.
    """

    name: str
    aim: str
    burdens_machine: bool = False
    leaves_traces: bool = False


@dataclass(frozen=True)
class Attack:
    """A wrong program: its verdict must be neither ``accepted`` nor ``infrastructure``.

    Attributes:
        path: of its source.
        family: its folder.
        problem: key in :data:`~tests.helpers.attack_problems.PROBLEMS`.
        intent: what it tries, or which wrong output it gives.
        only_tier: the only isolation tier in which it makes sense; None for all tiers.
    """

    path: Path
    family: AttackFamily
    problem: str
    intent: str
    only_tier: str | None = None

    @property
    def name(self) -> str:
        """Family and file name, for test ids."""
        return f"{self.family.name}/{self.path.stem}"

    @property
    def source(self) -> str:
        """Text of the program, which must run in the sandbox only."""
        return self.path.read_text()


def load_attacks(folder: Path = CORPUS_FOLDER) -> list[Attack]:
    """Return all attacks in the order of the index.

    Raises:
        CorpusError: index and folder disagree, or an entry is wrong.
    """
    index = tomllib.loads((folder / INDEX_NAME).read_text())
    families, programs = index.get("families", {}), index.get("programs", [])
    faults = [*_find_family_faults(folder, families), *_find_program_faults(folder, programs)]
    if faults:
        raise CorpusError("\n".join([f"{folder / INDEX_NAME}:", *faults]))
    by_name = {name: AttackFamily(name, **entry) for name, entry in families.items()}
    return [_make_attack(folder, by_name, dict(entry)) for entry in programs]


def _make_attack(folder: Path, families: dict[str, AttackFamily], entry: dict[str, Any]) -> Attack:
    path = folder / entry.pop("file")
    return Attack(path, families[path.parent.name], **entry)


def _find_family_faults(folder: Path, families: dict[str, dict]) -> Iterator[str]:
    allowed = {field.name for field in fields(AttackFamily)} - {"name"}
    for name, entry in families.items():
        if not entry.get("aim") or not set(entry) <= allowed:
            yield f"families.{name}: needs an aim, and may have {', '.join(sorted(allowed))}"
    subfolders = {path.name for path in folder.iterdir() if path.name != INDEX_NAME}
    for name in sorted(subfolders ^ set(families)):
        yield f"{name}: a folder and an entry in [families] must both exist"


def _find_program_faults(folder: Path, programs: list[dict[str, Any]]) -> Iterator[str]:
    required, allowed = {"file", "problem", "intent"}, {"file", "problem", "intent", "only_tier"}
    for entry in programs:
        file = entry.get("file", "a program without a file")
        if not required <= set(entry) <= allowed or not all(entry.values()):
            yield f"{file}: needs {', '.join(sorted(required))}, and may have only_tier"
        elif entry["problem"] not in PROBLEMS:
            yield f"{file}: no problem {entry['problem']!r}; use one of {', '.join(PROBLEMS)}"
        elif entry.get("only_tier") not in (None, *get_args(Tier)):
            yield f"{file}: no tier {entry['only_tier']!r}; use one of {', '.join(get_args(Tier))}"
    entries = Counter(entry.get("file") for entry in programs)
    files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    for file in sorted(files - set(entries)):
        yield f"{file}: has no entry in [[programs]]"
    for file, count in entries.items():
        if file not in files:
            yield f"{file}: has an entry, but no such file exists"
        if count > 1:
            yield f"{file}: has {count} entries"
