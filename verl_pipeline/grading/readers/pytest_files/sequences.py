"""Counts the elements of sequences that are written out in a file.

Invariant: what is counted does not depend on any value that only running the file shows.
"""

import ast
import math

from verl_pipeline.grading.readers.pytest_files.parsed_file import ParsedFile

# Nobody wrote more cases than these; a larger number could fill the memory.
MAX_ELEMENTS = 10_000
# Stands for an element that is counted but not written out.
_ANY = ast.Constant(None)

Elements = list[ast.expr] | None


def list_elements(file: ParsedFile, node: ast.expr) -> Elements:
    """Return the elements of ``node`` as expressions, or None if they cannot be counted.

    Of elements that are not written out, only the number means anything, and if they are tuples,
    the number of their members.
    """
    match node:
        case ast.Name() if (value := file.find_value(node.id)) is not None:
            elements = list_elements(file, value)
        case ast.List() | ast.Tuple():
            elements = _join_elements(file, node.elts)
        case ast.Set() | ast.Dict():
            elements = _list_distinct(node.elts if isinstance(node, ast.Set) else node.keys)
        case ast.Constant(value=str() as text):
            elements = [_ANY] * len(text)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            starred: list[ast.expr] = [ast.Starred(left), ast.Starred(right)]
            elements = _join_elements(file, starred)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int() as count)):
            repeated = list_elements(file, left)
            small = repeated is not None and len(repeated) * count <= MAX_ELEMENTS
            elements = repeated * count if repeated is not None and small else None
        case ast.ListComp() | ast.GeneratorExp():
            elements = _list_comprehension(file, node)
        case ast.Call():
            elements = _list_call(file, node)
        case _:
            elements = None
    return elements if elements is not None and len(elements) <= MAX_ELEMENTS else None


def _join_elements(file: ParsedFile, nodes: list[ast.expr]) -> Elements:
    joined: list[ast.expr] = []
    for node in nodes:
        elements = list_elements(file, node.value) if isinstance(node, ast.Starred) else [node]
        if elements is None:
            return None
        joined += elements
    return joined


def _list_distinct(nodes: list[ast.expr] | list[ast.expr | None]) -> Elements:
    """Return the members of a set or the keys of a dict: equal ones count once."""
    try:
        values = {ast.literal_eval(node) for node in nodes if node is not None}
    except (ValueError, TypeError):
        return None
    return None if None in nodes else [_ANY] * len(values)


def _list_comprehension(file: ParsedFile, node: ast.ListComp | ast.GeneratorExp) -> Elements:
    counts = []
    for part in node.generators:
        elements = list_elements(file, part.iter)
        if elements is None or part.ifs or part.is_async:
            return None
        counts.append(len(elements))
    count = math.prod(counts)
    return [node.elt] * count if count <= MAX_ELEMENTS else None


def _list_call(file: ParsedFile, node: ast.Call) -> Elements:
    function = file.resolve(node.func)
    if function == "builtins.range":
        try:
            return [_ANY] * len(range(*map(ast.literal_eval, node.args)))
        except (ValueError, TypeError, MemoryError, OverflowError):
            return None
    match node.func:
        case ast.Attribute(value=base, attr="items" | "keys" | "values" as attr):
            value = file.find_value(base.id) if isinstance(base, ast.Name) else base
            if not isinstance(value, ast.Dict) or (keys := list_elements(file, value)) is None:
                return None
            return [_make_tuple(2) if attr == "items" else _ANY] * len(keys)
    parts = [list_elements(file, argument) for argument in node.args]
    counts = [len(part) for part in parts if part is not None]
    if not parts or None in parts or node.keywords:
        return None
    match function:
        case "builtins.list" | "builtins.tuple" | "builtins.sorted" | "builtins.reversed":
            # Sorting moves elements, so that only the number is known.
            first = parts[0] or []
            return first if function in ("builtins.list", "builtins.tuple") else [_ANY] * counts[0]
        case "builtins.enumerate":
            return [_make_tuple(2)] * counts[0]
        case "builtins.zip":
            return [_make_tuple(len(parts))] * min(counts)
        case "itertools.product" if math.prod(counts) <= MAX_ELEMENTS:
            return [_make_tuple(len(parts))] * math.prod(counts)
    return None


def _make_tuple(length: int) -> ast.expr:
    return ast.Tuple([_ANY] * length)
