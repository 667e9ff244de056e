"""Mutants: copies of a program with one small fault, by which the strength of tests is measured.

Invariants:
* The mutants of a program depend only on its text, the entry points, the number and the seed.
* Every mutant is valid Python, differs from the program and from the other mutants.
* Only code that an entry point or the module can reach by name is changed: a fault in dead code is
  no fault.
"""

import ast
import copy
import random
from collections.abc import Callable, Iterator, Sequence

# A change of one node in place.
_Change = Callable[[ast.AST], None]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def make_mutants(source: str, entry_points: Sequence[str], number: int, seed: str) -> list[str]:
    """Return at most ``number`` mutants, chosen by ``seed`` among all that there are.

    Args:
        source: a valid program.
        entry_points: names that tests call; without any, the module is what runs.
        number: how many.
        seed: any text.

    Raises:
        SyntaxError: ``source`` is not valid Python.
    """
    tree = ast.parse(source)
    sites = list(_list_sites(tree, _find_reachable(tree, entry_points)))
    random.Random(f"mutants {seed}").shuffle(sites)
    seen = {ast.unparse(tree)}
    mutants: list[str] = []
    for index, change in sites:
        if len(mutants) == number:
            break
        mutant = copy.deepcopy(tree)
        change(_get_node(mutant, index))
        text = ast.unparse(ast.fix_missing_locations(mutant))
        if text not in seen:
            seen.add(text)
            mutants.append(text)
    return mutants


def _get_node(tree: ast.Module, index: int) -> ast.AST:
    for number, node in enumerate(ast.walk(tree)):
        if number == index:
            return node
    raise IndexError(index)


def _find_reachable(tree: ast.Module, entry_points: Sequence[str]) -> set[int]:
    """Return the ``id`` of each definition of the module that is used, by names alone."""
    definitions: dict[str, list[ast.stmt]] = {}
    roots: list[ast.AST] = []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions.setdefault(statement.name, []).append(statement)
        else:
            roots.append(statement)
    reached: set[int] = set()
    for name in (*entry_points, "Solution"):
        roots += definitions.get(name, [])
    while roots:
        root = roots.pop()
        if id(root) in reached:
            continue
        reached.add(id(root))
        for node in ast.walk(root):
            if isinstance(node, ast.Name):
                roots += definitions.get(node.id, [])
    return reached


def _list_sites(tree: ast.Module, reachable: set[int]) -> Iterator[tuple[int, _Change]]:
    """Yield the position, in the order of ``ast.walk``, and the change of every possible fault."""
    live: set[int] = set()
    for statement in tree.body:
        if id(statement) in reachable and not _is_main_guard(statement):
            live |= {id(node) for node in _walk_code(statement)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in live:
            for change in _list_changes(node):
                yield index, change


def _walk_code(root: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: neither annotations, default values, decorators nor docstrings."""
    yield root
    for name, value in ast.iter_fields(root):
        if name in ("annotation", "returns", "args", "decorator_list") and not isinstance(
            root, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child):
                yield from _walk_code(child)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _list_changes(node: ast.AST) -> list[_Change]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            return [_replace("ops", [new()]) for new in _COMPARISONS[type(operator)]]
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in _OPERATORS:
            return [_replace("op", new()) for new in _OPERATORS[type(operator)]]
        case ast.BoolOp(op=ast.And()):
            return [_replace("op", ast.Or())]
        case ast.BoolOp(op=ast.Or()):
            return [_replace("op", ast.And())]
        case ast.Constant(value=bool() as value):
            return [_replace("value", not value)]
        case ast.Constant(value=int() | float() as value):
            return [_replace("value", value + 1), _replace("value", value - 1)]
        case ast.If() | ast.IfExp():
            return [_negate_test]
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            return [_replace("id", _NAMES[name])]
        case ast.Expr(value=ast.Call()):
            return [_replace("value", ast.Constant(value=None))]
    return []


def _replace(field: str, value: object) -> _Change:
    return lambda node: setattr(node, field, copy.deepcopy(value))


def _negate_test(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
