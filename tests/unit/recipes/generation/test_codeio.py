"""Rows of the CodeI/O corpus: what becomes a candidate, and why another row does not."""

import gzip
import json

import pytest

from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.codeio import (
    locate_corpus,
    make_candidate,
    read_corpus,
)
from verl_pipeline.recipes.deepcoder.generation.generation_config import CodeioConfig

ROW = {
    "task_description": "Scale a list.",
    "input_output_spec": "Input:\n  `values`\n  `factor`\n\nOutput:\n  `return` (list)",
    "code_sample": "import math\ndef main_solution(values, factor=2):\n"
    "    return [value * factor for value in values]",
    "input_generator": "def generate_inputs(rng: Random) -> dict:\n"
    "    return {'values': [rng.randint(0, 9)], 'factor': 3}",
    "difficulty": 7,
}


def test_a_row_becomes_a_candidate_with_its_parameters():
    candidate = make_candidate("3", ROW, "call")

    assert candidate.parameters == ("values", "factor") and candidate.optional == 1
    assert candidate.entry_point == "main_solution" and not candidate.stdin_main
    assert candidate.question.startswith("Scale a list.")
    assert "`main_solution(values, factor)`" in candidate.question
    assert candidate.difficulty == "codeio 7"


def test_for_standard_input_the_statement_tells_the_order_of_the_lines():
    candidate = make_candidate("3", ROW, "stdin")

    assert "one line for each of values, factor, in this order" in candidate.question
    assert candidate.stdin_main and "main_solution(" not in candidate.question


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code_sample": None}, "broken corpus row"),
        ({"task_description": "  "}, "broken corpus row"),
        ({"code_sample": "def main_solution(:"}, "the corpus row is not valid Python"),
        ({"code_sample": "import numpy\ndef main_solution(a): return a"}, "needs a package"),
        ({"code_sample": "def main(a): return a"}, "a function is missing"),
        ({"code_sample": "def main_solution(*a): return a"}, "takes variable arguments"),
        ({"code_sample": "def main_solution(): return 1"}, "takes no arguments"),
    ],
)
def test_another_row_is_rejected_for_its_reason(changes, reason):
    with pytest.raises(Rejection) as found:
        make_candidate("3", {**ROW, **changes}, "call")

    assert found.value.reason == reason


def test_every_row_of_the_corpus_is_accounted_for(tmp_path):
    path = tmp_path / "codeio.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(f"{json.dumps(ROW)}\nnot JSON\n[1]\n{json.dumps(ROW)}\n")

    proposals = list(read_corpus(path, CodeioConfig(limit=3)))

    assert [name for name, _proposal in proposals] == ["1", "2", "3"]
    assert [isinstance(one, Rejection) for _name, one in proposals] == [False, True, True]


def test_a_corpus_that_is_nowhere_is_refused_with_the_way_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(DataNotFound, match=r"codeio\.file=.*: no such file"):
        locate_corpus(CodeioConfig(file=str(tmp_path / "no.jsonl")), DataFinder())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DataNotFound, match="pip install --no-deps reasoning-gym==0.1.25"):
        locate_corpus(CodeioConfig(), DataFinder(tmp_path, False))
