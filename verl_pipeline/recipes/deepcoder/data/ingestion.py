"""Stage ``ingest``: turns the rows of one data source's files into problem records.

Invariants:
* Every row either becomes a record or is listed with the reason, its file and its number.
* A file is refused if none of its rows has the fields of a known format; the error names the
  missing fields.
* The source's reader has read the tests of every record, so the reward can read them as well.
"""

import ast
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verl_pipeline.errors import show_line
from verl_pipeline.evaluation.data import BadData, DataFinder, Row, check_data_file
from verl_pipeline.evaluation.noted_rows import UNEXPECTED, NotedRow
from verl_pipeline.grading import AssertTest, Problem, PytestTest, StdinTest
from verl_pipeline.grading.problem import write_code
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.grading.readers.row_values import (
    decode_text,
    describe_value,
    format_value,
    make_plain,
    parse_text,
)
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES, DataSource, RowFormat
from verl_pipeline.recipes.deepcoder.data.preparation_config import SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord, RemovedRow
from verl_pipeline.recipes.deepcoder.data.row_files import read_numbered_rows
from verl_pipeline.recipes.deepcoder.data.row_formats import RawProblem

# Official solutions stored per problem. Some sources have hundreds; only a few are ever run.
MAX_SOLUTIONS = 16
# Reason of a removed row that could not be read.
BROKEN_ROW = "broken row"
# Characters of an error that are stored as the detail of a removed row.
_MAX_DETAIL = 300


def locate_files(name: str, config: SourceConfig, finder: DataFinder) -> tuple[list[Path], str]:
    """Return the files of a data source, and where they come from.

    Raises:
        DataNotFound: no files were found; the message says which files are needed.
        BadData: ``sources.<name>.file`` does not exist, or a file cannot be read.
    """
    source = SOURCES[name]
    if config.file is None:
        files, origin = finder.find_files(
            source.file_stems, source.package, source.hub, source.part_stems
        )
    elif os.path.exists(config.file):
        files, origin = [Path(config.file)], config.file
    else:
        raise BadData(f"sources.{name}.file={config.file}: no such file")
    for file in files:
        check_data_file(file)
    return files, origin


def ingest_rows(
    name: str, config: SourceConfig, files: list[Path], advance: Callable[[], None]
) -> Iterator[ProblemRecord | RemovedRow]:
    """Yield the records and the removed rows of ``files``, in order.

    Args:
        name: name of the data source.
        config: its settings.
        files: its files.
        advance: called once per row.

    Raises:
        BadData: no row of a file has the fields of a known format.
    """
    source, ids, row_count = SOURCES[name], set[str](), 0
    for file in files:
        readable_count, unknown_rows = 0, list[Row]()
        for number, row in read_numbered_rows(file):
            if config.limit is not None and row_count >= config.limit:
                return
            row_count += 1
            advance()
            origin = f"{file.name}:{number}"
            noted = NotedRow({} if isinstance(row, BadRow) else row)
            try:
                if isinstance(row, BadRow):
                    raise row
                row_format = _find_format(row, source)
                if row_format is None:
                    unknown_rows.append(row)
                    raise BadRow(_describe_missing_fields(row, source))
                readable_count += 1
                result = _build_record(name, source, row_format.read_row(noted), origin, config)
            except BadRow as error:
                result = _remove_broken_row(name, origin, str(error))
            # Whatever a malformed row makes a reader raise costs this row, not the file.
            except UNEXPECTED:
                result = _remove_broken_row(name, origin, noted.describe_error())
            if isinstance(result, ProblemRecord):
                if result.id in ids:
                    result = dataclasses.replace(result, id=f"{result.id}@{origin}")
                ids.add(result.id)
            yield result
        if unknown_rows and not readable_count:
            raise BadData(
                f"{file}: no row has a known format of {name}: "
                f"{_describe_missing_fields(unknown_rows[0], source)}"
            )


def _remove_broken_row(name: str, origin: str, detail: str) -> RemovedRow:
    return RemovedRow(f"{name}/{origin}", name, BROKEN_ROW, show_line(detail)[:_MAX_DETAIL])


def _find_format(row: Row, source: DataSource) -> RowFormat | None:
    return next(
        (one for one in source.row_formats if one.required_fields <= row.keys()),
        None,
    )


def _describe_missing_fields(row: Row, source: DataSource) -> str:
    """Name the fields that the row lacks in each format."""
    missing = [", ".join(sorted(one.required_fields - row.keys())) for one in source.row_formats]
    return (
        f"no field {' (or, in another format, '.join(missing)}{')' * (len(missing) - 1)}; it has "
        f"{', '.join(row)}"
    )


def _build_record(
    name: str, source: DataSource, raw: RawProblem, origin: str, config: SourceConfig
) -> ProblemRecord | RemovedRow:
    record_id = f"{name}/{raw.id or origin}"
    if raw.skip_reason:
        reason = raw.skip_reason.partition(":")[0]
        return RemovedRow(record_id, name, show_line(reason), show_line(raw.skip_reason))
    start, end = config.start or "", config.end or "9999"
    if (config.start or config.end) and not start <= (raw.date or "") < end:
        detail = f"{raw.date}; kept: from {config.start}, before {config.end}"
        return RemovedRow(record_id, name, "outside the window", detail)
    if not isinstance(raw.question, str) or not raw.question.strip():
        raise BadRow("no question")
    tests = _write_tests(raw.tests)
    problem = read_problem(source.reader, tests, name=record_id)
    record = ProblemRecord(
        id=record_id,
        source=name,
        reader=source.reader,
        question=raw.question,
        tests=tests,
        test_count=_count_tests(problem),
        calls=_list_called_names(problem),
        origin=origin,
        solutions=tuple(raw.solutions[:MAX_SOLUTIONS]),
        starter=raw.starter,
        language=raw.language,
        date=raw.date,
        difficulty=raw.difficulty,
        multi_answer=raw.multi_answer,
        prompt=raw.prompt,
    )
    _check_texts(record)
    return record


def _write_tests(tests: Any) -> str:
    """Return tests as text that parquet can store: their own text if they are valid Unicode."""
    tests = make_plain(tests)
    try:
        if isinstance(tests, str | bytes):
            return decode_text(decode_text(tests).encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        tests = parse_text(tests)
    return format_value(tests)


def _check_texts(record: ProblemRecord) -> None:
    """Refuse texts that parquet cannot store.

    Raises:
        BadRow: a value is not text, or is not valid Unicode (half of a surrogate pair).
    """
    texts: tuple[Any, ...] = (
        record.id,
        record.question,
        record.tests,
        record.starter,
        *record.solutions,
    )
    for text in texts:
        if not isinstance(text, str):
            raise BadRow(f"expected text, found {describe_value(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow(f"not valid Unicode: {error}") from error


def _count_tests(problem: Problem) -> int:
    """Count the tests, or the distinct assert statements if the tests are Python code.

    A pytest file counts for at least as many tests as pytest collects from it.
    """
    sources = [test.source for test in problem.tests if isinstance(test, AssertTest)]
    if not sources:
        return len(problem.tests)
    nodes = (node for source in dict.fromkeys(sources) for node in ast.walk(ast.parse(source)))
    asserts = len({write_code(node) for node in nodes if isinstance(node, ast.Assert)})
    files = (test for test in problem.tests if isinstance(test, PytestTest))
    return max(asserts, sum(cases for file in files for _name, cases in file.collected))


def _list_called_names(problem: Problem) -> tuple[str, ...]:
    first_test = problem.tests[0]
    if isinstance(first_test, StdinTest):
        return ()
    if isinstance(first_test, AssertTest):
        return first_test.names
    return (problem.entry_point or "",)
