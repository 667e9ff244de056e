"""Comparisons of the program's objects with values, in which no object may pass for a value.

Invariant: an object is one of a class that the file uses as a class, and is made by calling it by
its name; whatever else is compared is none of this module's business.
"""

import ast
from collections.abc import Iterator

from verl_pipeline.grading.readers.pytest_files.parsed_file import SOLUTION, ParsedFile

_VALUES = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.UnaryOp)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# A function may be named like a class; what it returns has such attributes only.
_BUILT_IN_ATTRIBUTES = {
    name for kind in (str, bytes, int, float, complex, list, tuple, dict, set) for name in dir(kind)
}


def find_compared_objects(file: ParsedFile) -> Iterator[str]:
    """Yield the classes of objects that the tests compare with a value that they write down."""
    made = _find_made_objects(file)
    classes = _find_classes(file, made)
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            for side, other in ((left, right), (right, left)):
                name = _get_class(file, side) or made.get(ast.unparse(side))
                if isinstance(operator, _COMPARISONS) and _is_value(other) and name in classes:
                    yield name


def _find_made_objects(file: ParsedFile) -> dict[str, str]:
    """Return the class of each variable or attribute that only calls of this class set."""
    made: dict[str, set[str]] = {}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name | ast.Attribute):
                    key = ast.unparse(target)
                    made.setdefault(key, set()).add(_get_class(file, node.value))
    return {key: classes.pop() for key, classes in made.items() if len(classes) == 1}


def _find_classes(file: ParsedFile, made: dict[str, str]) -> set[str]:
    """Return the names that the file uses as classes: ``Name.attr``, or ``Name().attr``."""
    classes = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and node.attr not in _BUILT_IN_ATTRIBUTES:
            base = file.resolve(node.value)
            own = base.removeprefix(f"{SOLUTION}.") if base.startswith(f"{SOLUTION}.") else ""
            classes |= {own, _get_class(file, node.value), made.get(ast.unparse(node.value), "")}
    return classes - {""}


def _get_class(file: ParsedFile, node: ast.expr) -> str:
    """Return the name of the program's class that ``node`` calls, or ''."""
    origin = file.resolve(node.func) if isinstance(node, ast.Call) else ""
    module, _dot, name = origin.rpartition(".")
    return name if module == SOLUTION and name[:1].isupper() else ""


def _is_value(node: ast.expr) -> bool:
    return isinstance(node, _VALUES) and not (isinstance(node, ast.Constant) and node.value is None)
