"""Names that the source of tests uses, defines and lacks.

Invariant: a name counts as defined if the source binds it anywhere, in whatever scope: a row is
never refused for a name that could be there.
"""

import ast
import builtins
import functools
import sys
from typing import Any

from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE


def find_used_names(source: str) -> dict[str, None]:
    """Return the names that ``source`` reads, in order of appearance."""
    return {
        node.id: None
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


@functools.lru_cache(maxsize=64)
def find_defined_names(source: str) -> frozenset[str] | None:
    """Return all names that ``source`` binds; None if it imports some by a star."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.alias(name="*"):
                return None
            case ast.alias():
                names.add(node.asname or node.name.partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                names.add(name)
    return frozenset(names)


def find_own_names(source: str, reference: str, prelude: str) -> tuple[str, ...]:
    """Return the names of ``source`` that the program defines: those that its reference does.

    Without a reference solution, all names that neither ``source`` nor the prelude defines.
    """
    used = find_used_names(source)
    defined = _list_top_level_names(reference)
    if defined:
        return tuple(name for name in used if name in defined)
    known = {*(find_defined_names(source) or ()), *(_find_prelude_names(prelude) or ())}
    return tuple(name for name in used if name not in known and not hasattr(builtins, name))


def refuse_unknown_names(source: str, names: tuple[str, ...], prelude: str) -> None:
    """Raise BadRow if the tests use a name that neither they nor the program can define."""
    defined, lent = find_defined_names(source), _find_prelude_names(prelude)
    if defined is None or lent is None:
        return
    known = {*names, *defined, *lent, *dir(builtins)}
    if unknown := [name for name in find_used_names(source) if name not in known]:
        raise BadRow(f"the tests use {', '.join(unknown)}, which nothing defines")


def _list_top_level_names(reference: str) -> set[str]:
    """Return the names that a solution binds at its top level; none if it is not valid Python."""
    names: set[str] = set()
    for node in [] if find_syntax_error(reference) else ast.parse(reference).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


@functools.lru_cache(maxsize=64)
def _find_prelude_names(prelude: str) -> frozenset[str] | None:
    """Return the names that a prelude defines; None if they cannot be known."""
    rest = prelude.removeprefix(IMPORTS_PRELUDE)
    names = find_defined_names(rest)
    if names is None or rest == prelude:
        return names
    scope: dict[str, Any] = {}
    limit = sys.getrecursionlimit()
    exec(IMPORTS_PRELUDE, scope)  # our own text
    sys.setrecursionlimit(limit)
    return names | scope.keys()
