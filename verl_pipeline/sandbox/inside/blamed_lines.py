"""Whether an error in a test file may be the program's fault before any value of it has arrived.

The tests may have looked up names, and a wrong program may have a function where a right one has a
number, or a class of which nothing can be counted where a right one has an enumeration.

Invariant: an error on whose way no line of the test file names something of the program is the
tests' own.
"""

import itertools
import re
import traceback

import remote_objects
import solution_module


def is_of_program(item):
    """Whether ``item`` stands for something of the program, or for the program itself."""
    return (
        isinstance(item, solution_module.SolutionModule)
        or remote_objects.is_stand_in(item)
        or (isinstance(item, type) and hasattr(item, "_peer"))
    )


def names_program(error, source, file_name):
    """Whether what raised ``error`` in the file, whose text is ``source``, names the program."""
    lines = source.splitlines()
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.endswith(file_name):
            end = max(line, _find_end(frame))
            words = set(re.findall(r"\w+", "\n".join(lines[line - 1 : end])))
            if any(is_of_program(frame.f_globals.get(word)) for word in words):
                return True
    return False


def _find_end(frame):
    """Return the last line of the expression that ``frame`` evaluates, or 0."""
    positions = frame.f_code.co_positions()
    _start, end, *_columns = next(itertools.islice(positions, frame.f_lasti // 2, None))
    return end or 0
