"""The scopes of a test file that pytest looks into: the module and its classes.

Invariants:
* A name that pytest might collect has one meaning in its scope, or the file is refused.
* Whether a class is collected follows pytest's rules: ``Test*`` without constructor, or a subclass
  of ``unittest.TestCase``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.marks import is_fixture
from verl_pipeline.grading.readers.pytest_files.parsed_file import (
    Function,
    ParsedFile,
    list_bindings,
    list_imports,
)

_TEST_CASE = "unittest.TestCase"
# Names that change what pytest collects.
_REFUSED_NAMES = ("__test__", "__getattr__", "__dir__", "runTest", "__init_subclass__")
# Literals: what they make cannot be called, so that pytest does not take it for a test.
_UNCALLABLE = (
    ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.BinOp, ast.UnaryOp, ast.Compare,
)  # fmt: skip


@dataclass
class Scope:
    """The module, or a class.

    Attributes:
        name: for messages.
        tests, classes: by name; classes that are not collected too.
        fixtures: the functions that define them.
        names: all names that it binds.
        mark_list: the value of ``pytestmark``.
    """

    name: str
    tests: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, "ClassScope"] = field(default_factory=dict)
    fixtures: list[Function] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    mark_list: ast.expr | None = None

    def walk(self) -> Iterator["Scope"]:
        """Yield this scope and all classes in it."""
        yield self
        for scope in self.classes.values():
            yield from scope.walk()


@dataclass(kw_only=True)
class ClassScope(Scope):
    """A class.

    Attributes:
        bases: those of this file.
        mro: itself and all its bases of this file, in the order in which Python looks names up.
        has_other_bases: whether it has bases that are neither of this file nor known here.
    """

    node: ast.ClassDef
    bases: list["ClassScope"] = field(default_factory=list)
    mro: list["ClassScope"] = field(default_factory=list)
    has_other_bases: bool = False
    is_test_case: bool = False
    is_collected: bool = False

    @property
    def has_tests(self) -> bool:
        """Whether it, its bases or the classes in it define a test."""
        return any(
            scope.tests or any(inner.has_tests for inner in scope.classes.values())
            for scope in self.mro
        )


def is_function_name(name: str) -> bool:
    """Whether pytest takes a function of this name for a test."""
    return name.startswith("test")


def read_module(file: ParsedFile) -> Scope:
    """Read a file's scopes.

    Raises:
        BadRow: what pytest would collect cannot be told from the text.
    """
    declared = {
        name for node in ast.walk(file.tree) if isinstance(node, ast.Global) for name in node.names
    }
    for name in (*file.star_names, *declared):
        if is_function_name(name) or name.startswith(("Test", "pytest")):
            raise BadRow(f"pytest could collect {name}, which the program or a function defines")
    module = Scope("the file")
    _read_scope(file, module, file.tree.body, {})
    return module


def _read_scope(
    file: ParsedFile, scope: Scope, body: list[ast.stmt], visible: dict[str, "ClassScope"]
) -> None:
    """Fill ``scope`` from its statements; ``visible`` are the classes of outer scopes, by name."""
    bindings: dict[str, list[ast.AST]] = {}
    for name, node in list_bindings(body):
        bindings.setdefault(name, []).append(node)
    for name, nodes in bindings.items():
        _check_name(file, scope, name, nodes, body)
    scope.names = list(bindings)
    for statement in body:
        name = getattr(statement, "name", "")
        if isinstance(statement, Function):
            if is_fixture(file, statement):
                scope.fixtures.append(statement)
            elif is_function_name(name):
                scope.tests[name] = statement
        elif isinstance(statement, ast.ClassDef):
            inner = _read_class(file, statement, visible | scope.classes)
            scope.classes[name] = inner
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            if "pytestmark" in map(ast.unparse, _list_targets(statement)):
                scope.mark_list = statement.value


def _check_name(
    file: ParsedFile, scope: Scope, name: str, nodes: list[ast.AST], body: list[ast.stmt]
) -> None:
    """Refuse a name whose meaning to pytest depends on how the file runs."""
    where = f"{name} in {scope.name}"
    if name.startswith("pytest_") or name in _REFUSED_NAMES:
        raise BadRow(f"{where} changes what pytest collects")
    # A class of any name may be collected, as a subclass of unittest.TestCase.
    matters = name == "pytestmark" or any(
        isinstance(node, ast.ClassDef) or (isinstance(node, Function) and is_fixture(file, node))
        for node in nodes
    )
    if is_function_name(name) or name.startswith("Test"):
        match nodes:
            case [ast.Import() | ast.ImportFrom() as node]:
                origins = dict(list_imports(node))
                if origins[name] not in (_TEST_CASE, "numpy.testing"):
                    raise BadRow(f"pytest could collect {where}, which is imported")
                return
            case [ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value)]:
                if not isinstance(value, _UNCALLABLE):
                    raise BadRow(f"pytest could collect {where}, which is assigned")
                return
            case [ast.Name()]:
                raise BadRow(f"pytest could collect {where}, which is assigned")
        matters = True
    if matters and (len(nodes) > 1 or nodes[0] not in body):
        raise BadRow(f"{where} is defined twice, or under a condition")


def _read_class(file: ParsedFile, node: ast.ClassDef, visible: dict[str, ClassScope]) -> ClassScope:
    scope = ClassScope(node.name, node=node)
    _read_scope(file, scope, node.body, visible)
    foreign: list[str] = []
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in visible:
            scope.bases.append(visible[base.id])
        else:
            foreign.append(file.resolve(base.value if isinstance(base, ast.Subscript) else base))
    scope.mro = _linearize(scope)
    others = [base for base in foreign if base not in (_TEST_CASE, "builtins.object")]
    if any(base.partition(".")[0] in ("", "solution", "pytest") for base in others):
        raise BadRow(f"the class {node.name} has a base that cannot be read from the tests")
    scope.is_test_case = _TEST_CASE in foreign or any(base.is_test_case for base in scope.bases)
    scope.has_other_bases = bool(others or node.keywords) or any(
        base.has_other_bases for base in scope.bases
    )
    if scope.is_test_case or node.name.startswith("Test"):
        decorators = [one for one in node.decorator_list if not _is_mark(file, one)]
        constructors = {"__init__"} if scope.is_test_case else {"__init__", "__new__"}
        bound = {name for one in scope.mro for name, _node in list_bindings(one.node.body)}
        if decorators or scope.has_other_bases or constructors & bound:
            if scope.has_tests or not _is_data_class(file, scope, decorators, others):
                raise BadRow(f"whether pytest collects the class {node.name} cannot be told")
        else:
            scope.is_collected = True
    return scope


def _is_data_class(
    file: ParsedFile, scope: ClassScope, decorators: list[ast.expr], others: list[str]
) -> bool:
    """Whether pytest passes by the class, because it has a constructor."""
    has_init = any(name == "__init__" for name, _ in list_bindings(scope.node.body))
    called = [
        file.resolve(decorator.func if isinstance(decorator, ast.Call) else decorator)
        for decorator in decorators
    ]
    is_plain = not scope.is_test_case and not scope.node.keywords and len(scope.mro) == 1
    return is_plain and (
        (called == ["dataclasses.dataclass"] and not others and not _has_keywords(decorators))
        or (others == ["typing.NamedTuple"] and not called)
        or (has_init and not others and not called)
    )


def _has_keywords(decorators: list[ast.expr]) -> bool:
    """Whether a decorator is told not to make a constructor, or anything else that matters."""
    return any(
        keyword.arg not in ("frozen", "order", "eq", "slots", "kw_only")
        for decorator in decorators
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
    )


def _is_mark(file: ParsedFile, decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return file.resolve(called).startswith(("pytest.mark.", "unittest."))


def _linearize(scope: ClassScope) -> list[ClassScope]:
    """Return the class and its bases, in the order in which Python looks names up."""
    kinds: dict[int, type] = {}

    def make_type(one: ClassScope) -> type:
        if id(one) not in kinds:
            kinds[id(one)] = type(one.name, tuple(map(make_type, one.bases)), {"scope": one})
        return kinds[id(one)]

    try:
        return [vars(kind)["scope"] for kind in make_type(scope).__mro__[:-1]]
    except TypeError as error:
        raise BadRow(f"the class {scope.name} has bases that Python refuses: {error}") from error


def _list_targets(statement: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return statement.targets if isinstance(statement, ast.Assign) else [statement.target]
