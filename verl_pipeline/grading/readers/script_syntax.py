"""What the syntax tree of a test script says about single statements, without running anything."""

import ast
from collections.abc import Iterable, Iterator

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_EXITS = ("exit", "quit", "_exit")


def empty_data(tree: ast.Module) -> dict[ast.AST, int]:
    """Empty the literals that hold plain data, so that no later walk visits it.

    HumanEval+ has scripts of megabytes of it.

    Returns:
        The number of members that each emptied list or tuple had.
    """
    data, counts = set[ast.AST](), dict[ast.AST, int]()
    for node in reversed(list(ast.walk(tree))):  # members come before what they are in
        match node:
            case ast.Constant():
                data.add(node)
            case ast.UnaryOp(operand=operand) if operand in data:
                data.add(node)
            case ast.List(elts=members) | ast.Tuple(elts=members) | ast.Set(elts=members):
                if data.issuperset(members):
                    data.add(node)
                    counts[node] = len(members)
                    members.clear()
            case ast.Dict(keys=keys, values=values) if data.issuperset(filter(None, keys)):
                if data.issuperset(values):
                    data.add(node)
                    keys.clear()
                    values.clear()
    return counts


def find_literals(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the literals by name that are bound once and have no method called or item set."""
    stored: list[str] = []
    changed: set[str] = set()
    literals: dict[str, ast.expr] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                stored.append(name)
            case ast.arg(arg=name):
                stored.append(name)
            case ast.Attribute(value=ast.Name(id=name)):
                changed.add(name)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                changed.add(name)
            case ast.AugAssign(target=ast.Name(id=name)):
                changed.add(name)
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List() | ast.Tuple() as value):
                literals[name] = value
    counts = {name: stored.count(name) for name in literals}
    return {
        name: value for name, value in literals.items() if counts[name] == 1 and name not in changed
    }


def is_check(statement: ast.stmt) -> bool:
    """Whether a statement can fail on purpose: an assert, a raise, a call of ``assert_...``."""
    if isinstance(statement, ast.Assert):
        return not is_always_true(statement)
    if isinstance(statement, ast.Raise):
        return True
    return any(
        isinstance(node, ast.Attribute) and node.attr.startswith("assert")
        for node in ast.walk(statement)
    )


def is_always_true(statement: ast.Assert) -> bool:
    return isinstance(statement.test, ast.Constant) and bool(statement.test.value)


def ends_block(statement: ast.stmt) -> bool:
    """Whether the statements after this one in its block never run."""
    if isinstance(statement, _ENDS):
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        name = getattr(function, "id", None) or getattr(function, "attr", None)
        return name in _EXITS
    return False


def is_lazy(function: FunctionNode) -> bool:
    """Whether calling the function runs nothing yet: it is a coroutine or a generator."""
    if isinstance(function, ast.AsyncFunctionDef):
        return True
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _walk_own(function.body))


def _walk_own(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body without those of functions in it."""
    for node in body:
        yield node
        if not isinstance(node, FunctionNode | ast.Lambda | ast.ClassDef):
            yield from _walk_own(ast.iter_child_nodes(node))


def list_names(root: ast.AST) -> set[str]:
    """Return the names that are read, attributes and texts: anything that may call a function."""
    names = set[str]()
    for node in ast.walk(root):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                names.add(name)
            case ast.Attribute(attr=name):
                names.add(name)
            case ast.Constant(value=str() as text) if text.isidentifier():
                names.add(text)
    return names
