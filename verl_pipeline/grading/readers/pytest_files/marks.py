"""Decorators of tests, classes and fixtures, and ``pytestmark``: how they multiply tests.

Invariant: a decorator that is not known here is refused, because it could replace the test.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.parsed_file import Function, ParsedFile
from verl_pipeline.grading.readers.pytest_files.sequences import list_elements

_SCOPES = ("function", "class", "module", "package", "session")
# What a condition of skipif or xfail may look at.
_CONDITION_MODULES = {"sys", "os", "platform"}


@dataclass(frozen=True)
class Marks:
    """What the marks of one test, class or file say.

    Attributes:
        parametrized: for each ``parametrize`` its arguments' names and the number of cases.
        indirect: names of arguments whose values go to fixtures.
        used_fixtures: names given to ``usefixtures``.
        never_runs: whether it is skipped, or expected to fail, whatever the program does.
    """

    parametrized: tuple[tuple[tuple[str, ...], int], ...] = ()
    indirect: frozenset[str] = frozenset()
    used_fixtures: tuple[str, ...] = ()
    never_runs: bool = False

    def __add__(self, other: "Marks") -> "Marks":
        return Marks(
            self.parametrized + other.parametrized,
            self.indirect | other.indirect,
            self.used_fixtures + other.used_fixtures,
            self.never_runs or other.never_runs,
        )


@dataclass(frozen=True)
class Fixture:
    """A fixture.

    Attributes:
        name: by which tests request it.
        requested: fixtures that it requests itself.
        cases: number of its parameters, or None if it has none.
        autouse: whether all tests of its scope use it.
        rank: index of its scope; a fixture may not request one of a lower rank.
    """

    name: str
    requested: tuple[str, ...]
    cases: int | None
    autouse: bool
    rank: int


def is_fixture(file: ParsedFile, function: Function) -> bool:
    """Whether a function is decorated as a fixture."""
    return "pytest.fixture" in (
        file.resolve(_get_called(decorator)) for decorator in function.decorator_list
    )


def read_fixture(file: ParsedFile, function: Function, in_class: bool) -> Fixture:
    """Read a fixture from its decorator and its arguments.

    Raises:
        BadRow: it cannot be read without running the file.
    """
    if isinstance(function, ast.AsyncFunctionDef) or len(function.decorator_list) > 1:
        raise BadRow(f"the fixture {function.name} is asynchronous, or decorated twice")
    keywords = _get_keywords(function.decorator_list[0], f"the fixture {function.name}")
    try:
        scope = ast.literal_eval(keywords.pop("scope", ast.Constant("function")))
        name = ast.literal_eval(keywords.pop("name", ast.Constant(None))) or function.name
        autouse = bool(ast.literal_eval(keywords.pop("autouse", ast.Constant(False))))
    except ValueError as error:
        raise BadRow(f"the fixture {function.name} is set up by an expression: {error}") from error
    params, ids = keywords.pop("params", None), keywords.pop("ids", None)
    if scope not in _SCOPES or keywords or not isinstance(name, str):
        raise BadRow(f"the fixture {function.name} has unknown settings")
    cases = None
    if params is not None and not _is_none(params):
        cases = len(_list_cases(file, params, 1, True, f"the fixture {function.name}"))
        _check_ids(file, ids, cases, f"the fixture {function.name}")
    return Fixture(name, list_arguments(function, in_class), cases, autouse, _SCOPES.index(scope))


def list_arguments(function: Function, in_class: bool) -> tuple[str, ...]:
    """Return the arguments that pytest fills with fixtures or parameters: those without default.

    Raises:
        BadRow: an argument is positional-only.
    """
    arguments = function.args
    if arguments.posonlyargs:
        raise BadRow(f"{function.name} has positional-only arguments, which pytest cannot pass")
    required = arguments.args[: len(arguments.args) - len(arguments.defaults)]
    if in_class:
        if not arguments.args:
            raise BadRow(f"the method {function.name} has no self")
        required = required[1:]
    keyword_only = [
        argument
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return tuple(argument.arg for argument in (*required, *keyword_only))


def read_marks(file: ParsedFile, decorators: Iterable[ast.expr], where: str) -> Marks:
    """Add up marks of pytest and decorators of unittest.

    Raises:
        BadRow: a decorator is unknown, or its effect depends on running the file.
    """
    marks = Marks()
    for decorator in decorators:
        called = file.resolve(_get_called(decorator))
        if called.startswith("pytest.mark.") and called.count(".") == 2:
            marks += _read_mark(file, called.rpartition(".")[2], decorator, where)
        elif called in ("unittest.skip", "unittest.expectedFailure"):
            marks += Marks(never_runs=True)
        elif called in ("unittest.skipIf", "unittest.skipUnless"):
            _check_condition(file, _get_arguments(decorator)[:1], where)
        else:
            raise BadRow(
                f"{where} has the decorator {ast.unparse(decorator)}, which may replace it"
            )
    return marks


def read_mark_list(file: ParsedFile, value: ast.expr, where: str) -> Marks:
    """Read the value of ``pytestmark``: one mark, or a list of marks."""
    marks = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    return read_marks(file, marks, where)


def _read_mark(file: ParsedFile, name: str, mark: ast.expr, where: str) -> Marks:
    if name == "parametrize":
        return _read_parametrize(file, mark, where)
    if name == "usefixtures":
        try:
            used = tuple(map(ast.literal_eval, _get_arguments(mark)))
        except ValueError as error:
            raise BadRow(f"{where} uses fixtures by an expression") from error
        return Marks(used_fixtures=used)
    if name in ("skipif", "xfail", "skip"):
        conditions = [] if name == "skip" else _get_arguments(mark)
        if isinstance(mark, ast.Call):
            keywords = (keyword for keyword in mark.keywords if keyword.arg in ("condition", None))
            conditions += [keyword.value for keyword in keywords if name != "skip"]
        _check_condition(file, conditions, where)
        return Marks(never_runs=name != "skipif" and not conditions)
    return Marks()  # without its plugin a mark does nothing


def _read_parametrize(file: ParsedFile, mark: ast.expr, where: str) -> Marks:
    keywords = _get_keywords(mark, f"parametrize of {where}")
    for name, argument in zip(
        ("argnames", "argvalues", "indirect", "ids", "scope"), _get_arguments(mark), strict=False
    ):
        keywords[name] = argument
    try:
        names = ast.literal_eval(keywords.pop("argnames"))
        indirect = ast.literal_eval(keywords.pop("indirect", ast.Constant(False)))
    except (KeyError, ValueError) as error:
        raise BadRow(f"parametrize of {where} does not name its arguments") from error
    is_tuple = not isinstance(names, str) or names.rstrip().endswith(",")
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    values, ids = keywords.pop("argvalues", None), keywords.pop("ids", None)
    keywords.pop("scope", None)
    if keywords or values is None or not names or len(set(names)) < len(names):
        raise BadRow(f"parametrize of {where} has unknown settings")
    single = len(names) == 1 and not is_tuple
    cases = _list_cases(file, values, len(names), single, f"parametrize of {where}")
    _check_ids(file, ids, len(cases), f"parametrize of {where}")
    through = names if indirect is True else indirect or ()
    return Marks(((tuple(names), len(cases)),), frozenset(through))


def _list_cases(
    file: ParsedFile, values: ast.expr, width: int, single: bool, where: str
) -> list[ast.expr]:
    """Return the cases; each must visibly have ``width`` values unless it is a ``single`` one."""
    cases = list_elements(file, values)
    if not cases:
        raise BadRow(f"{where}: no cases, or their number cannot be read without running them")
    for case in cases:
        match case:
            case ast.Call(args=arguments) if file.resolve(case.func) == "pytest.param":
                length = len(arguments) if not _has_stars(arguments) else -1
                _check_param_keywords(file, case, where)
            case ast.Tuple(elts=members) | ast.List(elts=members) if not single:
                length = len(members) if not _has_stars(members) else -1
            case _:
                length = 1 if single and not _may_be_param(file, case) else -1
        if length != width:
            raise BadRow(
                f"{where}: a case has not {width} values that can be seen: {ast.unparse(case)[:60]}"
            )
    return cases


def _check_param_keywords(file: ParsedFile, case: ast.Call, where: str) -> None:
    for keyword in case.keywords:
        if keyword.arg == "marks":
            marks = read_mark_list(file, keyword.value, where)
            if marks.parametrized or marks.used_fixtures:
                raise BadRow(f"{where}: a case has marks that pytest refuses")
        elif keyword.arg != "id" or not isinstance(keyword.value, ast.Constant):
            raise BadRow(f"{where}: a case with an unknown setting {keyword.arg}")


def _may_be_param(file: ParsedFile, case: ast.expr) -> bool:
    """Whether a function of the file that may return ``pytest.param`` makes the case."""
    return any(isinstance(node, ast.Call) for node in ast.walk(case)) and any(
        file.resolve(node) == "pytest.param"
        for function in ast.walk(file.tree)
        if isinstance(function, Function)
        for statement in function.body
        for node in ast.walk(statement)
    )


def _check_ids(file: ParsedFile, ids: ast.expr | None, count: int, where: str) -> None:
    if ids is None or isinstance(ids, ast.Lambda) or _is_none(ids):
        return
    if file.resolve(ids) in ("builtins.str", "builtins.repr"):
        return
    if isinstance(ids, ast.Name):
        match file.bindings.get(ids.id):
            case [ast.FunctionDef()]:
                return
    elements = list_elements(file, ids)
    literal = (str, int, float, bool, type(None))
    if (
        elements is None
        or len(elements) != count
        or not all(isinstance(e, ast.Constant) and isinstance(e.value, literal) for e in elements)
    ):
        raise BadRow(f"{where}: its ids cannot be read, or are not as many as its cases")


def _check_condition(file: ParsedFile, conditions: Iterable[ast.expr], where: str) -> None:
    """Refuse a condition that looks at anything but the platform: the program could skip a test."""
    for condition in conditions:
        names = [node for node in ast.walk(condition) if isinstance(node, ast.Name)]
        modules = {file.resolve(name).partition(".")[0] for name in names}
        is_text = isinstance(condition, ast.Constant) and isinstance(condition.value, str)
        if is_text or not modules <= _CONDITION_MODULES:
            raise BadRow(f"{where} is skipped under a condition: {ast.unparse(condition)}")


def _get_called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _get_arguments(mark: ast.expr) -> list[ast.expr]:
    arguments = mark.args if isinstance(mark, ast.Call) else []
    if _has_stars(arguments):
        raise BadRow(f"a mark with arguments that cannot be read: {ast.unparse(mark)[:60]}")
    return list(arguments)


def _get_keywords(decorator: ast.expr, where: str) -> dict[str, Any]:
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    if any(keyword.arg is None for keyword in keywords):
        raise BadRow(f"{where} has settings that cannot be read")
    return {str(keyword.arg): keyword.value for keyword in keywords}


def _has_stars(nodes: Iterable[ast.expr]) -> bool:
    return any(isinstance(node, ast.Starred) for node in nodes)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
