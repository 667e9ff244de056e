"""A parsed pytest file: what its names mean, without importing it.

Invariants:
* The body of ``if __name__ == "__main__"`` is not part of the file: pytest never runs it.
* A name resolves only if the file binds it in one way; otherwise its meaning is unknown.
"""

import ast
import builtins
import importlib
import symtable
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.allowed_names import STAR_MODULES

SOLUTION = "solution"
Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTION_TYPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
# What every module has.
_MODULE_NAMES = {"__name__", "__file__", "__doc__", "__annotations__"}


@dataclass(frozen=True)
class ParsedFile:
    """A test file without its main guards.

    Attributes:
        tree: of the whole file.
        origins: what imported names mean, as dotted names.
        bindings: for each name that module scope binds, the nodes that bind it.
        solution_names: names that the file takes from ``solution``, in order.
        star_names: those that ``from solution import *`` has to provide: names that the file uses
            and nothing else binds.
    """

    tree: ast.Module
    origins: dict[str, str]
    bindings: dict[str, list[ast.AST]]
    solution_names: tuple[str, ...]
    star_names: tuple[str, ...]

    def resolve(self, node: ast.AST) -> str:
        """Return the dotted name that a name or a chain of attributes stands for, or ''.

        ``pt.mark.skip`` is ``pytest.mark.skip`` after ``import pytest as pt``; ``len`` is
        ``builtins.len``.
        """
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            return f"{base}.{node.attr}" if base else ""
        if not isinstance(node, ast.Name):
            return ""
        bound = self.bindings.get(node.id, [])
        if node.id in self.origins:
            return self.origins[node.id] if len(bound) <= 1 else ""
        return f"builtins.{node.id}" if hasattr(builtins, node.id) and not bound else ""

    def find_value(self, name: str) -> ast.expr | None:
        """Return the expression that is the value of a module's name for good, or None."""
        match self.bindings.get(name, []):
            case [ast.Assign(targets=[ast.Name()], value=value)]:
                return None if self._may_change(name) else value
            case [ast.AnnAssign(value=ast.expr() as value)]:
                return None if self._may_change(name) else value
        return None

    def _may_change(self, name: str) -> bool:
        """Whether anything but plain reading may happen to the value of ``name``."""
        uses = [
            id(node)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name)
            and node.id == name
            and not isinstance(node.ctx, ast.Store)
        ]
        readings = {id(node) for parent in ast.walk(self.tree) for node in _list_read(parent)}
        return not readings.issuperset(uses)


def _list_read(parent: ast.AST) -> list[ast.expr]:
    """Return the parts of ``parent`` that it reads without changing or keeping them."""
    match parent:
        case ast.Call(
            func=ast.Name(id="enumerate" | "len" | "list" | "product" | "range" | "tuple" | "zip")
            | ast.Attribute(attr="fixture" | "parametrize" | "product")
        ):
            return [*parent.args, *(keyword.value for keyword in parent.keywords)]
        case ast.Call(func=ast.Attribute(value=base, attr="items" | "keys" | "values")):
            return [base]
        case ast.comprehension() | ast.For():
            return [parent.iter]
        case ast.Subscript(ctx=ast.Load()) | ast.Starred():
            return [parent.value]
        case ast.BinOp():
            return [parent.left, parent.right]
    return []


def parse_file(source: str) -> ParsedFile:
    """Parse a test file.

    Raises:
        BadRow: it is not valid Python, takes nothing from ``solution``, or uses undefined names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Parsing alone misses some errors, such as a second argument of the same name.
            compile(source, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError) as error:
        raise BadRow(f"the tests are not valid Python: {error}") from error
    tree = ast.fix_missing_locations(_MainGuards().visit(ast.parse(source)))
    origins: dict[str, str] = {}
    bindings: dict[str, list[ast.AST]] = {}
    taken: dict[str, None] = {}
    has_star = False
    stars: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name, origin in list_imports(node):
            module = origin.partition(".")[0]
            if name == "*":
                if module == SOLUTION:
                    has_star = True
                elif module in STAR_MODULES:
                    stars |= _list_public_names(origin.rpartition(".")[0])
                else:
                    raise BadRow(f"imports * from {module}: which names, only an import shows")
                continue
            if origins.setdefault(name, origin) != origin:
                raise BadRow(f"imports two things as {name}")
            if module == SOLUTION and origin != SOLUTION:
                taken[origin.partition(".")[2]] = None
    for name, bound in list_bindings(tree.body):
        bindings.setdefault(name, []).append(bound)
    for node in ast.walk(tree):  # a global statement lets functions bind the module's names
        if isinstance(node, ast.Global):
            for name in node.names:
                bindings.setdefault(name, []).append(node)
    solution_aliases = {name for name, origin in origins.items() if origin == SOLUTION}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=attr) if base in solution_aliases:
                taken[attr] = None
    if not (has_star or taken or solution_aliases):
        raise BadRow("the tests import nothing from solution")
    known = bindings.keys() | stars | _MODULE_NAMES
    free = [
        name
        for name in _list_global_names(tree)
        if name not in known and not hasattr(builtins, name)
    ]
    if free and not has_star:
        raise BadRow(f"the tests use undefined names: {', '.join(free)}")
    for name in free:
        taken[name] = None
    return ParsedFile(tree, origins, bindings, tuple(taken), tuple(free))


def list_imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, and what they stand for.

    Raises:
        BadRow: a relative import; the file is no part of a package.
    """
    if isinstance(node, ast.ImportFrom):
        if node.level:
            raise BadRow("a relative import, though the tests are a single file")
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
    else:
        for alias in node.names:
            if alias.asname:
                yield alias.asname, alias.name
            else:
                yield (top := alias.name.partition(".")[0]), top


def list_bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Yield names that the statements of one scope bind, and the nodes that bind them.

    Also those under ``if``, ``try``, ``with`` and loops, but not those of inner scopes.
    """
    targets = set()  # of plain assignments, which are themselves what binds the name
    for node in walk_scope(body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node
            case ast.Import() | ast.ImportFrom():
                yield from ((name, node) for name, _origin in list_imports(node) if name != "*")
            case (
                ast.Assign(targets=[ast.Name() as target])
                | ast.AnnAssign(target=ast.Name() as target)
            ):
                targets.add(id(target))
                yield target.id, node
            case ast.Name(ctx=ast.Store() | ast.Del()) if id(node) not in targets:
                yield node.id, node
            case ast.ExceptHandler(name=str() as name):
                yield name, node
            case ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name):
                yield name, node
            case ast.MatchMapping(rest=str() as name):
                yield name, node


def walk_scope(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of one scope, without the bodies of its functions and classes."""
    remaining: list[ast.AST] = list(reversed(body))
    while remaining:
        node = remaining.pop()
        yield node
        children: list[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, _FUNCTION_TYPES):
            children = [*getattr(node, "decorator_list", []), node.args]
        elif isinstance(node, ast.ClassDef):
            children = [*node.decorator_list, *node.bases, *node.keywords]
        remaining += reversed(children)


class _MainGuards(ast.NodeTransformer):
    """Replaces ``if __name__ == "__main__": ...`` by what follows its ``else``."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        match node.test:
            case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
                sides = {ast.unparse(left), ast.unparse(right)}
                if sides == {"__name__", "'__main__'"}:
                    return node.orelse or ast.copy_location(ast.Pass(), node)
        return node


def _list_global_names(tree: ast.Module) -> list[str]:
    """Return the names that are looked up in module scope, in order."""
    names: dict[str, None] = {}
    tables = [symtable.symtable(ast.unparse(tree), "tests.py", "exec")]
    while tables:
        table = tables.pop()
        for symbol in table.get_symbols():
            is_module = table.get_type() == "module"
            if symbol.is_referenced() and (is_module or symbol.is_global()):
                names[symbol.get_name()] = None
        tables += table.get_children()
    return sorted(names)


def _list_public_names(module_name: str) -> set[str]:
    module = importlib.import_module(module_name)
    public = [name for name in vars(module) if not name.startswith("_")]
    return set(getattr(module, "__all__", public))
