"""Predicts what pytest collects from a file, by its default rules.

Invariants:
* The prediction is what ``pytest --collect-only`` lists, or the file is refused.
* A test that is written but that pytest would not run is a reason to refuse the file: shadowed by
  a second definition, nested, in a class that is not collected, asynchronous.
"""

import ast
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.class_scopes import (
    ClassScope,
    Scope,
    is_function_name,
    read_module,
)
from verl_pipeline.grading.readers.pytest_files.marks import (
    Fixture,
    Marks,
    list_arguments,
    read_fixture,
    read_mark_list,
    read_marks,
)
from verl_pipeline.grading.readers.pytest_files.parsed_file import Function, ParsedFile, walk_scope

# Fixtures of pytest that work here; the others see the descriptors or warnings of the program's
# process, replace its names, or give folders that it does not share.
_BUILT_IN_FIXTURES = {"capsys", "record_property", "request"}


@dataclass(frozen=True)
class CollectedTests:
    """What pytest collects.

    Attributes:
        cases: for each test (``TestClass::test_name``) the number of its cases.
        can_pass: whether any of them is neither skipped nor expected to fail.
    """

    cases: dict[str, int]
    can_pass: bool


def predict_collection(file: ParsedFile) -> CollectedTests:
    """Return what pytest would collect.

    Raises:
        BadRow: nothing, less than is written, or what cannot be told without running the file.
    """
    module = read_module(file)
    predictor = _Predictor(file, module)
    cases = dict(predictor.list_tests(module, "", Marks(), {}))
    if not cases:
        raise BadRow("pytest would collect no test")
    return CollectedTests(cases, predictor.can_pass)


class _Predictor:
    def __init__(self, file: ParsedFile, module: Scope):
        self.file, self.module = file, module
        self.can_pass = False
        self.run_functions: set[int] = set()

    def list_tests(
        self, scope: Scope, prefix: str, outer: Marks, outer_fixtures: dict[str, Fixture]
    ) -> Iterator[tuple[str, int]]:
        """Yield the tests of the module or of a collected class, with their numbers of cases."""
        scopes: list[Scope] = list(scope.mro) if isinstance(scope, ClassScope) else [scope]
        marks = outer
        for one in scopes:
            marks += self._read_scope_marks(one)
        fixtures = dict(outer_fixtures)
        for one in reversed(scopes):
            for function in one.fixtures:
                fixture = read_fixture(self.file, function, isinstance(one, ClassScope))
                hidden = fixtures.get(fixture.name)
                if hidden is not None and (hidden.cases or fixture.cases):
                    raise BadRow(f"a fixture with parameters is defined twice: {fixture.name}")
                fixtures[fixture.name] = fixture
        is_test_case = isinstance(scope, ClassScope) and scope.is_test_case
        for name, owner in _resolve_names(scopes):
            others = (*(function.name for function in owner.fixtures), *owner.classes)
            if is_test_case and is_function_name(name) and name in others:
                raise BadRow(f"{prefix}{name} is a test to unittest, but is no function")
            if name in owner.classes:
                inner = owner.classes[name]
                if is_test_case and inner.has_tests:
                    raise BadRow(f"{prefix}{name}: pytest collects no class within a TestCase")
                if inner.is_collected:
                    yield from self.list_tests(inner, f"{prefix}{name}::", marks, fixtures)
            elif name in owner.tests:
                function = owner.tests[name]
                self.run_functions.add(id(function))
                cases = self._count_cases(function, f"{prefix}{name}", marks, fixtures, scope)
                yield f"{prefix}{name}", cases
        if scope is self.module:
            self._check_all_run(scope)

    def _count_cases(
        self,
        function: Function,
        where: str,
        marks: Marks,
        fixtures: dict[str, Fixture],
        scope: Scope,
    ) -> int:
        in_class = isinstance(scope, ClassScope)
        is_test_case = isinstance(scope, ClassScope) and scope.is_test_case
        _check_body(function, where)
        marks = self._read_own_marks(function, where, is_test_case) + marks
        self.can_pass |= not marks.never_runs
        arguments = list_arguments(function, in_class)
        if is_test_case and (arguments or marks.parametrized):
            raise BadRow(f"{where}: a test of a TestCase takes no arguments")
        names = [name for names, _count in marks.parametrized for name in names]
        if len(set(names)) < len(names):
            raise BadRow(f"{where} is parametrized twice with one name")
        direct = set(names) - marks.indirect
        automatic = [fixture.name for fixture in fixtures.values() if fixture.autouse]
        closure = _close_over(
            [*automatic, *marks.used_fixtures, *arguments], fixtures, direct, where
        )
        unused = set(names) - closure
        if unused or not marks.indirect <= set(names) or marks.indirect - fixtures.keys():
            raise BadRow(f"{where} is parametrized with names that it does not use")
        cases = math.prod(count for _names, count in marks.parametrized)
        for name in closure - set(names):
            fixture = fixtures.get(name)
            if fixture is not None and fixture.cases is not None:
                if is_test_case:
                    raise BadRow(f"{where}: fixtures with parameters do not work in a TestCase")
                cases *= fixture.cases
        return cases

    def _read_own_marks(self, function: Function, where: str, is_test_case: bool) -> Marks:
        decorators = function.decorator_list
        if not is_test_case:
            for decorator in decorators:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if self.file.resolve(called).startswith("unittest."):
                    raise BadRow(f"{where}: a decorator of unittest on a plain test")
        return read_marks(self.file, decorators, where)

    def _read_scope_marks(self, scope: Scope) -> Marks:
        marks = Marks()
        if isinstance(scope, ClassScope):
            marks += read_marks(self.file, scope.node.decorator_list, scope.name)
        if scope.mark_list is not None:
            marks += read_mark_list(self.file, scope.mark_list, scope.name)
        return marks

    def _check_all_run(self, module: Scope) -> None:
        for scope in module.walk():
            for name, function in scope.tests.items():
                if id(function) not in self.run_functions:
                    raise BadRow(f"pytest would not run {scope.name}::{name}")


def _resolve_names(scopes: list[Scope]) -> Iterator[tuple[str, Scope]]:
    """Yield each name that a class has, with the first class of its bases that defines it."""
    seen: set[str] = set()
    for scope in scopes:
        for name in scope.names:
            if name not in seen:
                seen.add(name)
                yield name, scope


def _close_over(
    requested: Iterable[str], fixtures: dict[str, Fixture], direct: set[str], where: str
) -> set[str]:
    """Return all fixtures and arguments that a test uses, directly or through fixtures.

    Raises:
        BadRow: one of them does not exist, or has too narrow a scope for another.
    """
    closure: set[str] = set()
    remaining = list(requested)
    while remaining:
        name = remaining.pop()
        if name in closure:
            continue
        closure.add(name)
        if name in direct or name in _BUILT_IN_FIXTURES:
            continue
        fixture = fixtures.get(name)
        if fixture is None:
            raise BadRow(
                f"{where} uses the fixture {name}, which does not exist here, or shows "
                "what happens in the program's process"
            )
        for other in fixture.requested:
            narrower = fixtures.get(other)
            is_narrow = narrower is not None and narrower.rank < fixture.rank
            if other == name or (other in direct and fixture.rank) or is_narrow:
                raise BadRow(f"the fixture {name} cannot use {other}")
        remaining += fixture.requested
    return closure


def _check_body(function: Function, where: str) -> None:
    """Refuse a test that pytest does not run as it is written."""
    if isinstance(function, ast.AsyncFunctionDef):
        raise BadRow(f"{where} is asynchronous: pytest does not run it without a plugin")
    own = list(walk_scope(function.body))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        raise BadRow(f"{where} is a generator: pytest does not run it")
    for node in ast.walk(function):
        if isinstance(node, Function) and node is not function and is_function_name(node.name):
            uses = (
                other
                for other in ast.walk(function)
                if isinstance(other, ast.Name) and other.id == node.name
            )
            if not any(uses):
                raise BadRow(f"{where}: the nested test {node.name} would not run")
