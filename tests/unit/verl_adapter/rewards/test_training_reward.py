"""Which sources reach verl's default scorer: those that compare texts, and no others."""

import ast
import importlib
import inspect

import pytest

from verl_pipeline.verl_adapter.rewards import scored_response
from verl_pipeline.verl_adapter.rewards.scored_response import (
    UngradedResponse,
    compares_text,
    executes_response,
)

TEXT = scored_response._TEXT_SOURCES
EXECUTING = scored_response._EXECUTING_SOURCES
# Names by which Python code can come from text, or a program be started.
DANGEROUS = {"eval", "exec", "compile", "__import__", "sympy", "mathruler", "subprocess", "os"}


def read_default_scorer() -> dict[str, str]:
    """The module that verl's default scorer imports, by each text it compares data_source with."""
    from verl.utils.reward_score import default_compute_score

    [function] = ast.parse(inspect.getsource(default_compute_score)).body
    modules: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.If):
            names = [n.value for n in ast.walk(node.test) if isinstance(n, ast.Constant)]
            imported = [
                alias.name
                for statement in node.body
                for found in ast.walk(statement)
                if isinstance(found, ast.ImportFrom)
                for alias in found.names
            ]
            if imported:
                modules |= {name: " ".join(imported) for name in names}
    return modules


def test_every_source_of_verls_scorer_is_in_one_list():
    known = set(read_default_scorer())
    assert TEXT | EXECUTING | {"aime"} == known and not TEXT & EXECUTING
    assert all(map(compares_text, TEXT)) and not any(map(compares_text, EXECUTING))
    assert all(map(executes_response, EXECUTING)) and not executes_response("mine")


@pytest.mark.parametrize("source", sorted(TEXT | {"aime"}))
def test_a_scorer_that_compares_texts_cannot_evaluate_them(source):
    module = importlib.import_module(f"verl.utils.reward_score.{read_default_scorer()[source]}")
    tree = ast.parse(inspect.getsource(module))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not (names | imports) & DANGEROUS and froms <= {"typing"}


@pytest.mark.parametrize("source", sorted(EXECUTING | {"mine", "", "openai/GSM8K"}))
def test_no_other_source_reaches_verls_scorer(source, tmp_path, monkeypatch):
    from verl_pipeline.verl_adapter.rewards import training_reward

    def refuse(*_args, **_kwargs):
        raise AssertionError("verl's scorer was called")

    monkeypatch.setattr(training_reward, "default_compute_score", refuse)
    reward = training_reward.TrainingReward(None, "compute_score", {})
    with pytest.raises(UngradedResponse, match="NotImplementedError"):
        reward.score_response(source, "1", "1", {})


def test_a_matrix_in_a_response_to_verls_scorer_would_run():
    """The reason for the lists: the scorer of numina_* evaluates this text."""
    from verl.utils.reward_score.prime_math.grader import math_equal

    with pytest.raises(ZeroDivisionError):
        math_equal("[1/0]", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}")
