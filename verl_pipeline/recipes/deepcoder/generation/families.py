"""Candidates from families of problems that this recipe describes as data: ``families.yaml``.

A family is one of reasoning-gym's generators (algebra, algorithmic, arithmetic) told as a
programming problem: statement, reference and input generator are ours, and its first tests are
items of reasoning-gym's generator with their own answers. So two implementations, written
independently, agree on every family.

Invariant: without reasoning-gym no family becomes a candidate.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from verl_pipeline.errors import show_line
from verl_pipeline.evaluation.data import DataFinder, DataNotFound, PackageFile
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.grading.readers.case_values import restore_integer_keys
from verl_pipeline.recipes.deepcoder.generation import reasoning_gym_items
from verl_pipeline.recipes.deepcoder.generation.built_rows import Proposal
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import FamiliesConfig

FILE = Path(__file__).with_name("families.yaml")
ENTRY = "solve"
# Items of reasoning-gym that become tests.
ITEMS = 8
_TIMEOUT_S = 300.0
_PACKAGE = PackageFile("reasoning-gym", "reasoning_gym", "factory.py")


@dataclass(frozen=True)
class Family:
    """A family of problems.

    Attributes:
        name: unique.
        generator: module of reasoning-gym, as in ``arithmetic.gcd``.
        arguments: keys of its items' metadata, in the order of the arguments; ``a.b`` is a key
            within another.
        answer: how its answer is written: ``json``, ``text``, ``words`` (separated by white
            space or commas), or a key of the metadata, as ``metadata.result``.
        question: the statement.
        solution: program with ``solve``.
        inputs: program with ``generate_inputs(rng)``, which returns the arguments as a list.
        config: settings of reasoning-gym's generator.
    """

    name: str
    generator: str
    arguments: list[str]
    answer: str
    question: str
    solution: str
    inputs: str
    config: dict[str, Any] = field(default_factory=dict)


def read_families() -> list[Family]:
    """Return all families."""
    return TypeAdapter(list[Family]).validate_python(yaml.safe_load(FILE.read_text()))


def list_families(config: FamiliesConfig, finder: DataFinder, seed: int) -> list[Proposal]:
    """Return the candidates of the families that ``families.names`` selects.

    Raises:
        BadSetting: there is no such family.
        DataNotFound: reasoning-gym is not installed, or does not run.
    """
    families = {family.name: family for family in read_families()}
    if unknown := [name for name in config.names if name not in families]:
        raise BadSetting(
            f"families.names: {unknown[0]!r} is no family; known: {', '.join(families)}"
        )
    chosen = [families[name] for name in config.names or families]
    folder = Path(config.folder) if config.folder else _find_package(finder)
    items = _draw_items(chosen, folder, seed)
    return [
        (family.name, make_candidate(family, own))
        for family, own in zip(chosen, items, strict=True)
    ]


def make_candidate(family: Family, items: Sequence[Mapping[str, Any]]) -> Candidate | Rejection:
    """Make the candidate of a family with items of reasoning-gym as its first tests."""
    try:
        given = tuple(
            (_read_arguments(family, item["metadata"]), _read_answer(family, item))
            for item in items
        )
    except (KeyError, TypeError, ValueError) as error:
        return Rejection(
            "an item of reasoning-gym cannot be read", f"{type(error).__name__}: {error}"
        )
    distinct = {json.dumps(arguments): (arguments, answer) for arguments, answer in given}
    return Candidate(
        id=family.name,
        question=family.question.strip(),
        program=family.solution,
        generator=f"{family.solution}\n\n{family.inputs}",
        entry_point=ENTRY,
        given=tuple(distinct.values()),
        difficulty="family",
        notes={"method": "families", "generator": family.generator},
    )


def _find_package(finder: DataFinder) -> Path:
    try:
        files, _origin = finder.find_files(("reasoning_gym_factory",), _PACKAGE)
    except DataNotFound as error:
        raise DataNotFound(
            "families: reasoning-gym is not installed: pip install --no-deps reasoning-gym==0.1.25,"
            " name its folder with families.folder, or leave families out of methods"
        ) from error
    return files[0].parent


def _draw_items(
    families: Sequence[Family], folder: Path, seed: int
) -> list[list[Mapping[str, Any]]]:
    requests = "".join(
        f"{json.dumps([one.generator, one.config, seed, ITEMS])}\n" for one in families
    )
    command = [sys.executable, str(Path(reasoning_gym_items.__file__)), str(folder)]
    try:
        run = subprocess.run(
            command, input=requests, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", None) or str(error)
        cause = show_line(str(output).strip().splitlines()[-1])
        raise DataNotFound(
            f"families: the generators in {folder} do not run: {cause}; install "
            "reasoning-gym==0.1.25, or leave families out of methods"
        ) from error
    return [json.loads(line) for line in run.stdout.splitlines()]


def _read_arguments(family: Family, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(restore_integer_keys(_look_up(metadata, name)) for name in family.arguments)


def _read_answer(family: Family, item: Mapping[str, Any]) -> Any:
    kind, answer = family.answer, item["answer"]
    if kind == "text":
        return answer
    if kind == "json":
        return json.loads(answer)
    if kind == "words":
        return answer.replace(",", " ").split()
    values = [_look_up(item["metadata"], key.removeprefix("metadata.")) for key in kind.split()]
    return values[0] if len(values) == 1 else values


def _look_up(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values
