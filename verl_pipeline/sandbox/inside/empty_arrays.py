"""Makes comparisons of an empty array with other values false, as they are for an empty list.

numpy broadcasts an empty array to any shape, and all() of no elements is true. HumanEval+ would
accept ``[]`` for every number, and ``pytest.approx`` an empty array for every number.
"""

import functools
import sys

_ASSERTIONS = (
    "assert_allclose assert_almost_equal assert_array_almost_equal assert_array_equal "
    "assert_array_less assert_equal"
).split()


def refuse_in_comparisons(source):
    """Change the functions of numpy that the tests may use; ``source`` is the text of the tests."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    original = numpy.allclose

    @functools.wraps(original)
    def allclose(a, b, *arguments, **keywords):
        return _are_alike(numpy, a, b) and original(a, b, *arguments, **keywords)

    numpy.allclose = allclose
    if "testing" in source:  # to import it takes time
        import numpy.testing

        for name in _ASSERTIONS:
            setattr(numpy.testing, name, _wrap_assertion(numpy, getattr(numpy.testing, name)))


def refuse_in_approx(pytest):
    """Make ``array == pytest.approx(number)`` false for an empty array."""
    kind = type(pytest.approx(0.0))
    original = kind.__eq__

    def __eq__(self, actual):
        is_empty = type(actual).__module__ == "numpy" and getattr(actual, "size", 1) == 0
        return not is_empty and original(self, actual)

    kind.__eq__ = __eq__


def _wrap_assertion(numpy, original):
    @functools.wraps(original)
    def check(actual, desired, *arguments, **keywords):
        is_array = isinstance(actual, numpy.ndarray) or isinstance(desired, numpy.ndarray)
        assert not is_array or _are_alike(numpy, actual, desired)
        return original(actual, desired, *arguments, **keywords)

    return check


def _are_alike(numpy, a, b):
    return bool(numpy.size(a)) == bool(numpy.size(b))
