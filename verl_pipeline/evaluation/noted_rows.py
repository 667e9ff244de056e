"""Rows that note which field was read last: what an unexpected error of a reader is about.

A reader of rows takes for granted that fields have the types of its data set. Where one has not,
Python's own error names types and no field.
"""

from typing import Any

from verl_pipeline.grading.readers.row_values import describe_value

# What a row of another form makes a reader raise.
UNEXPECTED = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    SyntaxError,
    RecursionError,
)


class NotedRow(dict[str, Any]):
    """A row; attribute ``field`` is the name that was read last, or None."""

    field: str | None = None

    def __getitem__(self, name: str) -> Any:
        self.field = name
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.field = name
        return super().get(name, default)

    def describe_error(self) -> str:
        """Return what was wrong with the field that was read last, in one line."""
        if self.field is None:
            return "not a row of this data set"
        if self.field not in self:
            return f"no {self.field}; it has {', '.join(self)}"
        return f"{self.field}: {describe_value(super().get(self.field))} of an unexpected form"
