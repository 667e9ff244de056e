"""Names that solutions of these data sets may take for granted.

LeetCode runs programs with the usual modules imported; the official graders of LiveCodeBench
(``import_string`` of ``lcb_runner``'s ``testing_util.py``) and APPS, and the released DeepCoder
grader (``BASE_IMPORTS``), put as much in front of every program. Built-in names keep their meaning:
``pow`` is not ``math.pow``.

A warm interpreter has run it already: hundreds of names cost each program milliseconds otherwise.
"""

_STARS = (
    "bisect collections copy functools heapq itertools math operator random re string typing "
    "builtins".split()
)
_MODULES = (
    "bisect collections copy datetime decimal fractions functools heapq io itertools json math "
    "operator os queue random re statistics string sys time typing"
).split()

# As LiveCodeBench's.
RECURSION = "sys.setrecursionlimit(50_000)"

IMPORTS = "\n".join(
    [*(f"from {name} import *" for name in _STARS), f"import {', '.join(_MODULES)}", RECURSION, ""]
)
