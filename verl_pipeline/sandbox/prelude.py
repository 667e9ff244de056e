"""Imports that run before a program: names that solutions of these data sets expect to exist.

LeetCode runs programs with the usual modules imported. The official graders of LiveCodeBench
(``import_string`` of ``lcb_runner``'s ``testing_util.py``) and APPS, and the released DeepCoder
grader (``BASE_IMPORTS``), insert similar imports before every program. Built-in names keep their
meaning: ``pow`` is not ``math.pow``, because ``builtins`` is the last star import.

A warm interpreter has already run this prelude: binding its hundreds of names costs milliseconds.
"""

_STAR_IMPORTED_MODULES = (
    "bisect collections copy functools heapq itertools math operator random re string typing "
    "builtins".split()
)
_IMPORTED_MODULES = (
    "bisect collections copy datetime decimal fractions functools heapq io itertools json math "
    "operator os queue random re statistics string sys time typing"
).split()

# The limit that LiveCodeBench sets.
_SET_RECURSION_LIMIT = "sys.setrecursionlimit(50_000)"

IMPORTS_PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in _STAR_IMPORTED_MODULES),
        f"import {', '.join(_IMPORTED_MODULES)}",
        _SET_RECURSION_LIMIT,
        "",
    ]
)
