"""What tests may use: they run in one process, the program in another, and only values cross.

Invariants:
* What would act on the program in one process but not across two (its files, its environment,
  patches of its names) is refused, because a right program would fail; its standard streams cross.
* What could turn text of the program into code of the tests, or end or skip tests at run time, is
  refused: those tests could not be trusted.
"""

import ast
from collections.abc import Iterator

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.allowed_names import (
    ALLOWED_MEMBERS,
    INSTALLED,
    OS_PATH_MEMBERS,
    PURE_MODULES,
    REFUSED_ATTRIBUTES,
    REFUSED_BUILTINS,
    REFUSED_ORIGINS,
    REFUSED_PATH_METHODS,
    REPLACEABLE,
    REQUEST_MEMBERS,
)
from verl_pipeline.grading.readers.pytest_files.object_comparisons import find_compared_objects
from verl_pipeline.grading.readers.pytest_files.parsed_file import (
    SOLUTION,
    ParsedFile,
    list_imports,
)


def check_boundary(file: ParsedFile) -> None:
    """Refuse a file that uses what cannot work across two processes.

    Raises:
        BadRow: the message names it.
    """
    for node in ast.walk(file.tree):
        for fault in _find_faults(file, node):
            raise BadRow(fault)
    for name in find_compared_objects(file):
        raise BadRow(f"the tests compare an object of {name} with a value, for which none may pass")


def _find_faults(file: ParsedFile, node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import() | ast.ImportFrom():
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            yield from filter(None, map(_find_module_fault, modules))
            for _name, origin in list_imports(node):
                yield from _find_origin_faults(origin)
        case ast.Attribute(value=base, attr=attr):
            if attr in REFUSED_ATTRIBUTES:
                yield f"the tests use {attr}"
            if isinstance(base, ast.Name) and base.id == "request" and attr not in REQUEST_MEMBERS:
                yield f"the tests use request.{attr}"
            if attr in REFUSED_PATH_METHODS and "pathlib" in map(_get_top, file.origins.values()):
                yield f"the tests use files ({attr}), which the program's process does not share"
            if not isinstance(node.ctx, ast.Load):
                origin = file.resolve(base)
                is_foreign = origin and _get_top(origin) != SOLUTION
                if attr.startswith("__") or (is_foreign and f"{origin}.{attr}" not in REPLACEABLE):
                    yield f"the tests replace {ast.unparse(node)}"
                if origin == SOLUTION:
                    yield f"the tests replace {ast.unparse(node)}, which stays the program's own"
            yield from _find_origin_faults(file.resolve(node))
        case ast.ClassDef(bases=bases):
            for base in bases:
                is_star_name = isinstance(base, ast.Name) and base.id in file.star_names
                if is_star_name or _get_top(file.resolve(base)) == SOLUTION:
                    yield f"the class {node.name} has a base of the program's, which stays there"
        case ast.Name():
            if not isinstance(node.ctx, ast.Load) and node.id == "__test__":
                yield "the tests use __test__"
            yield from _find_origin_faults(file.resolve(node))


def _find_module_fault(module: str) -> str | None:
    top = _get_top(module)
    if top == SOLUTION and module != SOLUTION:
        return f"the tests import {module}, but the program is a single file"
    if top in PURE_MODULES or top in ALLOWED_MEMBERS or top in INSTALLED or top == SOLUTION:
        return None if module != "unittest.mock" else "the tests use unittest.mock"
    return f"the tests import {module}, which is not installed in the sandbox, or not allowed there"


def _find_origin_faults(origin: str) -> Iterator[str]:
    top, _dot, rest = origin.partition(".")
    member = rest.partition(".")[0]
    allowed = ALLOWED_MEMBERS.get(top)
    if top == "builtins" and member in REFUSED_BUILTINS:
        yield f"the tests use {member}"
    if origin in REFUSED_ORIGINS:
        yield f"the tests use {origin}, which does not act on the program's process"
    if top == "os" and member == "path" and "." in rest:
        allowed, member = OS_PATH_MEMBERS, rest.split(".")[1]
    if allowed is not None and member and member not in allowed and member != "*":
        yield f"the tests use {origin}, which stays with the tests, or could decide them"


def _get_top(dotted: str) -> str:
    return dotted.partition(".")[0]
