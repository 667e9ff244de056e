"""Makes a task's problems from rows of data."""

from collections.abc import Callable, Iterable

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.data import BadData, Row
from verl_pipeline.evaluation.noted_rows import UNEXPECTED, NotedRow
from verl_pipeline.evaluation.task import TaskData, TaskItem
from verl_pipeline.grading.readers import BadRow


def read_items(
    rows: Iterable[Row], origin: str, make_item: Callable[[int, Row], TaskItem | None]
) -> TaskData:
    """Make one item per row and list the rows that cannot be read.

    Args:
        rows: rows of the data.
        origin: files or repository of the data.
        make_item: makes an item from a row's number and the row; returns None to skip the row.

    Raises:
        UserError: ``make_item`` refuses a setting.
        BadData: no row can be read, or two problems have one id.
    """
    items: list[TaskItem] = []
    bad: list[str] = []
    for number, row in enumerate(rows):
        noted = NotedRow(row)
        try:
            item = make_item(number, noted)
        except UserError:  # a setting that no row can mend
            raise
        except BadRow as error:
            bad.append(f"row {number}: {error}")
        except UNEXPECTED:
            bad.append(f"row {number}: {noted.describe_error()}")
        else:
            if item is not None:
                items.append(item)
    if not items:
        raise BadData(
            f"{origin}: no problem could be read" + (f"; the first error: {bad[0]}" if bad else "")
        )
    return TaskData(items, origin, bad)
