"""Finds programs whose answers depend on when they run; two runs a moment apart may agree."""

import ast

_CLOCKS = {"time": {"time", "time_ns", "localtime", "gmtime", "ctime", "monotonic", "perf_counter"}}
_DATE_METHODS = {"now", "utcnow", "today"}


def find_clock_use(program: str) -> str | None:
    """Return the first call that reads the clock, or None.

    Args:
        program: a valid program.
    """
    for node in ast.walk(ast.parse(program)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)) if (
                name in _CLOCKS.get(owner, ())
            ):
                return ast.unparse(node)
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if (
                name in _DATE_METHODS and "date" in ast.unparse(owner)
            ):
                return ast.unparse(node)
    return None
