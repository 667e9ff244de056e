"""Families as data: what a family says, and a package that stands in for reasoning-gym."""

import json

import pytest

from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.families import (
    Family,
    list_families,
    make_candidate,
    read_families,
)
from verl_pipeline.recipes.deepcoder.generation.generation_config import (
    FamiliesConfig,
    GenerateConfig,
)
from verl_pipeline.recipes.deepcoder.generation.problem_building import build_problem

# As the generators of reasoning-gym are written.
GCD_MODULE = """
import math, random
from dataclasses import dataclass


@dataclass
class GCDConfig:
    min_numbers: int = 2
    max_numbers: int = 2
    seed: int = 0
    size: int = 1


class GCDDataset:
    def __init__(self, config):
        self.config = config

    def __getitem__(self, index):
        chance = random.Random(self.config.seed + index)
        numbers = [6 * chance.randint(1, 50) for _ in range(self.config.max_numbers)]
        result = math.gcd(*numbers){fault}
        return {{"answer": str(result), "metadata": {{"numbers": numbers, "result": result}}}}
"""


@pytest.fixture
def make_package(tmp_path):
    def make(fault: str = "") -> FamiliesConfig:
        folder = tmp_path / "reasoning_gym"
        (folder / "arithmetic").mkdir(parents=True, exist_ok=True)
        # Importing the package would fail, as it does without its many dependencies.
        (folder / "__init__.py").write_text("import no_such_package\n")
        (folder / "arithmetic" / "gcd.py").write_text(GCD_MODULE.format(fault=fault))
        return FamiliesConfig(str(folder), ["gcd"])

    return make


@pytest.mark.medium
def test_items_of_the_package_are_the_first_tests_of_a_family(make_package, interpreters):
    [(name, candidate)] = list_families(make_package(), DataFinder(), 0)

    row = build_problem(candidate, interpreters, GenerateConfig())

    assert name == "gcd" and len(candidate.given) == 8
    assert row.tests["inputs"][:8] == [list(given) for given, _answer in candidate.given]
    assert row.generation["mutation_score"] == 1.0


@pytest.mark.medium
def test_a_reference_that_the_package_contradicts_is_rejected(make_package, interpreters):
    [(_name, candidate)] = list_families(make_package(" + 1"), DataFinder(), 0)

    with pytest.raises(Rejection) as found:
        build_problem(candidate, interpreters, GenerateConfig())

    assert found.value.reason == "the reference fails the tests that it came with"


def test_without_the_package_or_with_a_typo_the_command_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(BadSetting, match="families.names: 'gdc' is no family; known: gcd"):
        list_families(FamiliesConfig(None, ["gdc"]), DataFinder(), 0)
    with pytest.raises(DataNotFound, match="do not run: .*reasoning_gym.arithmetic.gcd"):
        list_families(FamiliesConfig(str(tmp_path), ["gcd"]), DataFinder(), 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DataNotFound, match="pip install --no-deps reasoning-gym==0.1.25"):
        list_families(FamiliesConfig(), DataFinder(tmp_path, False), 0)


@pytest.mark.parametrize("family", read_families(), ids=lambda family: family.name)
def test_every_family_defines_what_it_must(family):
    for text, name in ((family.solution, "solve"), (family.inputs, "generate_inputs")):
        compiled: dict = {}
        exec(text, compiled)  # ours, not a model's
        assert callable(compiled[name])
    assert "`solve(" in family.question and family.generator.count(".") == 1


def test_answers_are_read_as_the_family_says():
    item = {"answer": "b, a", "metadata": {"x": {"y": 1}, "low": 2, "high": [3]}}

    def read(answer):
        family = Family("f", "a.b", ["x.y"], answer, "q", "s", "i")
        candidate = make_candidate(family, [item, item])
        return candidate if isinstance(candidate, Rejection) else candidate.given

    assert read("words") == (((1,), ["b", "a"]),)
    assert read("text") == (((1,), "b, a"),)
    assert read("metadata.low metadata.high") == (((1,), [2, [3]]),)
    for wrong in ("json", "metadata.middle"):
        rejection = read(wrong)
        assert rejection.reason == "an item of reasoning-gym cannot be read"
    assert json.dumps(read("metadata.low")) == "[[[1], 2]]"
