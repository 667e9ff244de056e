"""Names that the source of tests uses, defines and lacks.

Invariant: a name counts as defined if the source binds it anywhere, in whatever scope: a row is
never refused for a name that could be there.
"""

import ast
import builtins
import functools


def find_used_names(source: str) -> dict[str, None]:
    """Return the names that ``source`` reads, in order of appearance, without built-in ones."""
    return {
        node.id: None
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and not hasattr(builtins, node.id)
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
