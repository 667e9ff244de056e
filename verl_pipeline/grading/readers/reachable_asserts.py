"""Whether the asserts of a test script run: an assert that never runs is a test that is dropped.

The analysis is static and errs on the side of "it runs": a function whose name occurs anywhere in
code that runs is taken to be called.

Invariant: a script passes only if each of its asserts may run and at least one of its checks can
fail.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.script_syntax import (
    FunctionNode,
    empty_data,
    ends_block,
    find_literals,
    is_always_true,
    is_check,
    is_lazy,
    list_names,
)


@dataclass(frozen=True)
class TestScript:
    """A script of which every assert may run.

    Attributes:
        tree: its syntax tree, in which lists of plain data are empty.
        names: the names that running code uses.
    """

    __test__ = False  # for pytest: the name is no test's

    tree: ast.Module
    names: frozenset[str]


def parse_script(source: str) -> TestScript:
    """Parse Python with asserts; it runs as a module with another name than ``__main__``.

    Raises:
        BadRow: it is not valid Python, an assert never runs, no assert can fail, or a loop runs
            over no tests or over lists of unequal length.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadRow(f"the tests are not valid Python: {error}") from error
    counts = empty_data(tree)
    script = _RunningCode(tree, counts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not is_always_true(node):
            if isinstance(node.test, ast.Tuple):
                raise BadRow(
                    f"the assert in line {node.lineno} is of a tuple, which is always true"
                )
            if node not in script.checks:
                raise BadRow(f"the assert in line {node.lineno} of the tests never runs")
    if not script.checks:
        raise BadRow("the tests have no assert that can fail")
    return TestScript(tree, frozenset(script.names))


class _RunningCode:
    """The code of a script that may run.

    Attributes:
        checks: asserts and other statements that can fail.
        names: names, attributes and texts in it.
    """

    def __init__(self, tree: ast.Module, counts: dict[ast.AST, int]):
        self._counts = counts
        self.checks, self.names = set[ast.AST](), set[str]()
        self._literals = find_literals(tree)
        self._called_names = set[str]()
        # Functions whose bodies run if one of these names occurs.
        self._pending: list[tuple[FunctionNode, frozenset[str]]] = []
        self._run_block(tree.body)
        while callable_now := [one for one in self._pending if self._is_called(*one)]:
            self._pending = [one for one in self._pending if one not in callable_now]
            for function, _names in callable_now:
                self._run_block(function.body)

    def _is_called(self, function: FunctionNode, names: frozenset[str]) -> bool:
        if names & self.names:
            return True
        # Calling a coroutine function or a generator function runs nothing of its body.
        return not is_lazy(function) and bool(names & self._called_names)

    def _run_block(self, body: Sequence[ast.stmt], owner: str | None = None) -> bool:
        """Run the statements; return whether the code behind them never runs."""
        for index, statement in enumerate(body):
            if isinstance(statement, FunctionNode):
                self._define_function(statement, body[index + 1 :], owner)
            elif self._run_statement(statement) or ends_block(statement):
                return True
        return False

    def _define_function(
        self, function: FunctionNode, rest: Sequence[ast.stmt], owner: str | None
    ) -> None:
        self._use_names(function.args, *function.decorator_list)
        for later in rest:
            if isinstance(later, FunctionNode) and later.name == function.name:
                return  # replaced before anything used it
            if function.name in list_names(later):
                break
        names = {function.name}
        if owner and function.name.startswith("__"):
            names.add(owner)
        if function.decorator_list:
            names |= self.names  # the decorator may call it
        self._pending.append((function, frozenset(names)))

    def _run_statement(self, statement: ast.stmt) -> bool:
        """Run one statement; return whether the code behind it never runs."""
        match statement:
            case ast.ClassDef():
                self._use_names(*statement.bases, *statement.decorator_list)
                self._run_block(statement.body, statement.name)
            case ast.If():
                self._use_names(statement.test)
                truth = self._find_truth(statement.test)
                ends = self._run_block(statement.body) if truth is not False else True
                or_ends = self._run_block(statement.orelse) if truth is not True else True
                return ends and or_ends
            case ast.While():
                self._use_names(statement.test)
                if self._find_truth(statement.test) is not False:
                    self._run_block(statement.body)
                self._run_block(statement.orelse)
            case ast.For() | ast.AsyncFor():
                self._use_names(statement.target, statement.iter)
                self._check_loop(statement.iter)
                self._run_block(statement.body)
                self._run_block(statement.orelse)
            case ast.With() | ast.AsyncWith():
                self._use_names(*statement.items)
                # It may suppress an exception, but no return.
                return self._run_block(statement.body) and not _has_raise(statement)
            case ast.Try() | ast.TryStar():
                for handler in statement.handlers:
                    self._use_names(*filter(None, [handler.type]))
                handlers_end = [self._run_block(handler.body) for handler in statement.handlers]
                ends = self._run_block(statement.body) or self._run_block(statement.orelse)
                return self._run_block(statement.finalbody) or (ends and all(handlers_end))
            case ast.Match():
                self._use_names(statement.subject)
                for case in statement.cases:
                    self._run_block(case.body)
            case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call):
                self._called_names.add(name)
                self._use_names(*call.args, *call.keywords)
                if name.startswith("assert"):
                    self.checks.add(statement)
            case _:
                self._use_names(statement)
                if is_check(statement):
                    self.checks.add(statement)
        return False

    def _use_names(self, *nodes: ast.AST) -> None:
        self.names.update(name for node in nodes for name in list_names(node))

    def _check_loop(self, iterable: ast.expr) -> None:
        """Refuse a loop over no tests, and a zip that leaves tests out."""
        if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name):
            if iterable.func.id == "enumerate" and iterable.args:
                return self._check_loop(iterable.args[0])
            if iterable.func.id == "zip":
                counts = [self._count_members(argument) for argument in iterable.args]
                known = {count for count in counts if count is not None}
                if len(known) > 1:
                    listed = " and ".join(map(str, counts))
                    raise BadRow(f"the loop in line {iterable.lineno} pairs lists of {listed}")
                if 0 in known:
                    raise BadRow(f"the loop in line {iterable.lineno} runs over no tests")
        elif self._count_members(iterable) == 0:
            raise BadRow(f"the loop in line {iterable.lineno} runs over no tests")
        return None

    def _find_truth(self, test: ast.expr) -> bool | None:
        """Return the value of a condition that does not depend on anything; None: unknown."""
        match test:
            case ast.Constant(value=value):
                return bool(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self._find_truth(operand)
                return None if truth is None else not truth
            case ast.List() | ast.Tuple():
                count = self._count_members(test)
                return None if count is None else count > 0
            case ast.Compare(
                left=ast.Name(id="__name__"),
                ops=[ast.Eq()],
                comparators=[ast.Constant(value="__main__")],
            ):
                return False
            case ast.BoolOp(op=ast.And(), values=values):
                return False if False in map(self._find_truth, values) else None
        return None

    def _count_members(self, node: ast.expr) -> int | None:
        """Return the length of a literal, or of the name of one; None: unknown."""
        if isinstance(node, ast.Name):
            node = self._literals.get(node.id, node)
        if node in self._counts:
            return self._counts[node]
        if isinstance(node, ast.List | ast.Tuple):
            return (
                None if any(isinstance(one, ast.Starred) for one in node.elts) else len(node.elts)
            )
        return None


def _has_raise(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(statement))
