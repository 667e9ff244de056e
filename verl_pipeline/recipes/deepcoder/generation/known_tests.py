"""The tests that a problem has, as pairs of input and output, whichever way its source writes them.

Invariant: all tests of a problem become pairs, or none: a strengthened problem must not lose a
test.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.grading import AssertTest, CallTest, Problem, PytestTest, StdinTest
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.test_pairs import TestPair

NO_PAIRS = "the known tests are no pairs of input and output"


@dataclass(frozen=True)
class KnownTests:
    """Tests as pairs.

    Attributes:
        pairs: in the order of the tests.
        entry_point: function, or method of ``class Solution``; None: standard input.
        is_boxed: outputs are written as lists of one element, and both are accepted.
    """

    pairs: tuple[TestPair, ...]
    entry_point: str | None
    is_boxed: bool = False


def read_known_tests(problem: Problem, solutions: Sequence[str]) -> KnownTests:
    """Return the tests of a problem as pairs.

    Args:
        solutions: official ones; they tell the order of named arguments.

    Raises:
        Rejection: a test is something else, or holds what JSON has not.
    """
    tests = problem.tests
    if all(isinstance(test, StdinTest) for test in tests):
        texts = [test for test in tests if isinstance(test, StdinTest)]
        return KnownTests(tuple(TestPair(one.input, one.output) for one in texts), None)
    if all(isinstance(test, CallTest) for test in tests):
        calls = [test for test in tests if isinstance(test, CallTest)]
        pairs = [_make_pair(one.args, one.output) for one in calls]
        return KnownTests(tuple(pairs), problem.entry_point, any(one.boxed for one in calls))
    sources = [
        test.source
        for test in tests
        if isinstance(test, AssertTest) and not isinstance(test, PytestTest)
    ]
    if len(sources) < len(tests):
        raise Rejection(NO_PAIRS, "they are a pytest file")
    return _read_asserts(sources, solutions)


def _read_asserts(sources: Sequence[str], solutions: Sequence[str]) -> KnownTests:
    pairs: list[TestPair] = []
    names: set[str] = set()
    for source in sources:
        tree = ast.parse(source)
        target = _find_candidate(tree)
        for node in _list_asserts(tree):
            call, expected = _read_assert(node)
            name = ast.unparse(call.func)
            names.add(target if target and name == "candidate" else name)
            arguments = _order_arguments(call, target or name, solutions)
            pairs.append(_make_pair(arguments, _read_literal(expected)))
    if len(names) != 1 or not pairs:
        raise Rejection(NO_PAIRS, f"they call {', '.join(sorted(names)) or 'nothing'}")
    [name] = names
    if not name.isidentifier():
        raise Rejection(NO_PAIRS, f"they call {name}")
    return KnownTests(tuple(pairs), name)


def _find_candidate(tree: ast.Module) -> str | None:
    """Return what ``check(...)`` is called with: a function, or a method of ``Solution()``."""
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[argument])):
                return (
                    argument.attr if isinstance(argument, ast.Attribute) else ast.unparse(argument)
                )
    return None


def _list_asserts(tree: ast.Module) -> Iterator[ast.Assert]:
    """Yield all asserts.

    Raises:
        Rejection: there is something else that decides.
    """
    for statement in tree.body:
        match statement:
            case ast.Assert():
                yield statement
            case ast.FunctionDef(name="check", body=body):
                for inner in body:
                    if not isinstance(inner, ast.Assert):
                        raise Rejection(NO_PAIRS, f"a statement {type(inner).__name__}")
                    yield inner
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"))):
                pass
            case _:
                raise Rejection(NO_PAIRS, f"a statement {type(statement).__name__}")


def _read_assert(node: ast.Assert) -> tuple[ast.Call, ast.expr]:
    match node.test:
        case ast.Compare(left=ast.Call() as call, ops=[ast.Eq() | ast.Is()], comparators=[value]):
            return call, value
        case ast.Compare(left=value, ops=[ast.Eq() | ast.Is()], comparators=[ast.Call() as call]):
            return call, value
    raise Rejection(NO_PAIRS, f"assert {ast.unparse(node.test)[:60]}")


def _order_arguments(call: ast.Call, function: str, solutions: Sequence[str]) -> tuple[Any, ...]:
    arguments = [_read_literal(node) for node in call.args]
    named = {one.arg: _read_literal(one.value) for one in call.keywords}
    if named:
        order = _find_parameters(function, solutions)[len(arguments) :]
        if set(order[: len(named)]) != named.keys():
            raise Rejection(NO_PAIRS, f"named arguments {', '.join(map(str, named))}")
        arguments += [named[name] for name in order[: len(named)]]
    return tuple(arguments)


def _find_parameters(function: str, solutions: Sequence[str]) -> list[str]:
    for program in solutions:
        if find_syntax_error(program) is None:
            for node in ast.walk(ast.parse(program)):
                if isinstance(node, ast.FunctionDef) and node.name == function:
                    names = [one.arg for one in node.args.args]
                    return names[1:] if names[:1] == ["self"] else names
    return []


def _read_literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise Rejection(NO_PAIRS, f"{ast.unparse(node)[:60]} is no literal") from error


def _make_pair(arguments: tuple[Any, ...], output: Any) -> TestPair:
    """Return a pair whose values are as JSON has them, with lists for tuples.

    Raises:
        Rejection: a value is no JSON, or another one after it: a set, or keys that are no text.
    """
    try:
        values = json.loads(json.dumps([list(arguments), output], allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise Rejection(NO_PAIRS, f"a value that JSON has not: {error}") from error
    if _as_lists([list(arguments), output]) != values:
        raise Rejection(NO_PAIRS, "a dict whose keys are no texts")
    return TestPair(tuple(values[0]), values[1])


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value
