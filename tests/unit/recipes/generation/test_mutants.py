"""Mutants: one live fault each, the same ones for the same seed."""

import ast

from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.recipes.deepcoder.generation.mutants import make_mutants

PROGRAM = '''
def unused(x):
    return x + 1


def clip(x, low: int = 3):
    """Clip 1 value."""
    return max(x, low)


def main_solution(values):
    total = 0
    for value in values:
        if value > 2 and value % 2 == 0:
            total += clip(value) * 2
    return total
'''
NUMBER = 200


def test_each_mutant_differs_in_one_place_of_code_that_runs():
    mutants = make_mutants(PROGRAM, ["main_solution"], NUMBER, "s")

    original = ast.unparse(ast.parse(PROGRAM))
    assert len(set(mutants)) == len(mutants) >= 12 and original not in mutants
    for mutant in mutants:
        pairs = zip(original.splitlines(), mutant.splitlines(), strict=True)
        changed = [old for old, new in pairs if old != new]
        assert len(changed) == 1
        # Neither dead code, nor a default value, nor a docstring.
        assert not any(text in changed[0] for text in ("x + 1", "low: int", "Clip 1"))


def test_a_condition_an_operator_and_a_call_are_all_changed():
    text = "\n".join(make_mutants(PROGRAM, ["main_solution"], NUMBER, "s"))

    changes = ["value >= 2", "value % 2 != 0", "> 2 or", "total -= ", "min(x, low)", "total = 1"]
    assert [change for change in changes if change not in text] == []


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 30), st.text(max_size=5))
def test_the_choice_depends_on_the_seed_alone(number, seed):
    mutants = make_mutants(PROGRAM, ["main_solution"], number, seed)

    assert mutants == make_mutants(PROGRAM, ["main_solution"], number, seed)
    assert len(mutants) <= number and set(mutants) <= set(
        make_mutants(PROGRAM, ["main_solution"], NUMBER, "another")
    )


def test_a_program_on_standard_input_is_changed_but_for_its_main_guard():
    program = "n = int(input())\nif __name__ == '__main__':\n    print(n + 1)\nprint(n * 2)\n"

    mutants = make_mutants(program, [], NUMBER, "s")

    assert mutants and all("print(n + 1)" in mutant for mutant in mutants)
