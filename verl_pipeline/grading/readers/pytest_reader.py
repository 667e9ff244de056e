"""KodCode: rows whose tests are a pytest file, which pytest itself runs as it is.

Invariant: a row is graded on every test that is written in its file, or it is refused here.
"""

from typing import Any

from verl_pipeline.grading.problem import TIME_S, Problem, PytestTest
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.pytest_files.boundary import check_boundary
from verl_pipeline.grading.readers.pytest_files.collection import predict_collection
from verl_pipeline.grading.readers.pytest_files.parsed_file import parse_file
from verl_pipeline.grading.readers.row_values import open_container, read_text

# A program that hangs is stopped after a minute, however long the file is.
MAX_TIMED_CASES = 5


def read_kodcode(tests: Any, *, name: str, source: str = "kodcode", **settings: Any) -> Problem:
    """Read a pytest file that imports the program as ``solution``, or a row with it as ``test``.

    The whole file is one test, so that ``time_s`` is for all its test functions together: by
    default, :data:`~verl_pipeline.grading.problem.TIME_S` for each of the first five cases.

    Raises:
        BadRow: pytest would not collect all tests of the file, how many cannot be told, or the
            tests use what cannot work while the program is in another process.
    """
    row = open_container(tests)
    text = read_text(row.get("test") if isinstance(row, dict) else row, "test")
    try:
        file = parse_file(text)
        check_boundary(file)
        collected = predict_collection(file)
        if not collected.can_pass:
            raise BadRow("all tests are skipped or expected to fail")
    except BadRow as error:
        raise BadRow(f"{source}/{name}: {error}") from error
    except RecursionError as error:
        raise BadRow(f"{source}/{name}: the tests are nested too deep") from error
    cases = sum(collected.cases.values())
    settings.setdefault("time_s", TIME_S * min(cases, MAX_TIMED_CASES))
    test = PytestTest(
        text,
        file.solution_names,
        objects=True,
        collected=tuple(sorted(collected.cases.items())),
        star_names=file.star_names,
    )
    return Problem(name, source, (test,), **settings)
