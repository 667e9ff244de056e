"""Stage ``ingest``: rows of one source's files to records.

Invariants:
* Every row is a record, or is listed with the reason, its file and its number; none is lost in
  silence.
* A file of which no row has the fields of a known shape is refused, naming the fields it lacks.
* A record's tests have been read by its reader: what later stages and the reward read is what was
  read here.
"""

import ast
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recipes.deepcoder.data.data_sources import SOURCES, Shape, Source
from recipes.deepcoder.data.preparation_config import SourceConfig
from recipes.deepcoder.data.problem_records import Record, Removed
from recipes.deepcoder.data.row_files import numbered_rows
from recipes.deepcoder.data.row_formats import Raw
from verl_pipeline.evaluation.data import BadData, Finder, Row
from verl_pipeline.grading import AssertTest, Problem, StdinTest
from verl_pipeline.grading.readers import READERS, BadRow

# Official solutions kept of a problem: some sources have hundreds, of which only a few are ever
# run.
MOST_SOLUTIONS = 16
BROKEN = "broken row"


def locate(name: str, config: SourceConfig, finder: Finder) -> tuple[list[Path], str]:
    """The files of a source, and where they come from.

    Raises:
        DataNotFound: there are none; the message says what would do.
        BadData: the file that ``sources.<name>.file`` names is not there.
    """
    source = SOURCES[name]
    if config.file is None:
        return finder.locate(source.stems, source.package, source.hub, source.parts)
    if not Path(config.file).is_file():
        raise BadData(f"sources.{name}.file={config.file}: no such file")
    return [Path(config.file)], config.file


def ingest(
    name: str, config: SourceConfig, files: list[Path], advance: Callable[[], None]
) -> Iterator[Record | Removed]:
    """Records of ``files``, in their order.

    Raises:
        BadData: no row of a file has the fields of a known shape.
    """
    source, ids, count = SOURCES[name], set[str](), 0
    for file in files:
        fitting, misfits = 0, list[Row]()
        for number, row in numbered_rows(file):
            if config.limit is not None and count >= config.limit:
                return
            count += 1
            advance()
            origin = f"{file.name}:{number}"
            try:
                if isinstance(row, BadRow):
                    raise row
                shape = _shape_of(row, source)
                if shape is None:
                    misfits.append(row)
                    raise BadRow(_lacks(row, source))
                fitting += 1
                found = _record(name, source, shape.read(row), origin, config)
            except (
                BadRow,
                KeyError,
                ValueError,
                TypeError,
                AttributeError,
                SyntaxError,
                RecursionError,
            ) as error:
                why = (
                    str(error) if isinstance(error, BadRow) else f"{type(error).__name__}: {error}"
                )
                found = Removed(f"{name}/{origin}", name, BROKEN, why[:300])
            if isinstance(found, Record):
                if found.id in ids:
                    found = dataclasses.replace(found, id=f"{found.id}@{origin}")
                ids.add(found.id)
            yield found
        if misfits and not fitting:
            raise BadData(f"{file}: no row has the shape of {name}: {_lacks(misfits[0], source)}")


def _shape_of(row: Row, source: Source) -> Shape | None:
    return next((shape for shape in source.shapes if shape.required <= row.keys()), None)


def _lacks(row: Row, source: Source) -> str:
    """The fields that the row lacks of each shape."""
    lacking = [", ".join(sorted(shape.required - row.keys())) for shape in source.shapes]
    return (
        f"no field {' (or, of another shape, '.join(lacking)}{')' * (len(lacking) - 1)}; it has "
        f"{', '.join(row)}"
    )


def _record(
    name: str, source: Source, raw: Raw, origin: str, config: SourceConfig
) -> Record | Removed:
    identity = f"{name}/{raw.id or origin}"
    if raw.skip:
        return Removed(identity, name, raw.skip.partition(":")[0], raw.skip)
    if (config.start or config.end) and not (config.start or "") <= (raw.date or "") < (
        config.end or "9999"
    ):
        return Removed(
            identity,
            name,
            "outside the window",
            f"{raw.date}; kept: {config.start} to before {config.end}",
        )
    if not isinstance(raw.question, str) or not raw.question.strip():
        raise BadRow("no question")
    tests = raw.tests if isinstance(raw.tests, str) else json.dumps(raw.tests)
    problem = READERS[source.reader](tests, name=identity, source=source.reader)
    record = Record(
        id=identity,
        source=name,
        reader=source.reader,
        question=raw.question,
        tests=tests,
        test_count=_count(problem),
        calls=_calls(problem),
        origin=origin,
        solutions=tuple(raw.solutions[:MOST_SOLUTIONS]),
        starter=raw.starter,
        language=raw.language,
        date=raw.date,
        difficulty=raw.difficulty,
        multi_answer=raw.multi_answer,
        prompt=raw.prompt,
    )
    _check_text(record)
    return record


def _check_text(record: Record) -> None:
    """Parquet holds Unicode only.

    Raises:
        BadRow: a text has half of a surrogate pair.
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
            raise BadRow(f"text is expected, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow(f"no Unicode text: {error}") from error


def _count(problem: Problem) -> int:
    """Tests, or different asserts where tests are Python: tests of one file share its text."""
    sources = [test.source for test in problem.tests if isinstance(test, AssertTest)]
    nodes = (node for source in dict.fromkeys(sources) for node in ast.walk(ast.parse(source)))
    return (
        len({ast.unparse(node) for node in nodes if isinstance(node, ast.Assert)})
        if sources
        else len(problem.tests)
    )


def _calls(problem: Problem) -> tuple[str, ...]:
    first = problem.tests[0]
    if isinstance(first, StdinTest):
        return ()
    return first.names if isinstance(first, AssertTest) else (problem.entry_point or "",)
