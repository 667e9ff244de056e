"""Lists of what tests may use; :mod:`.boundary` says why and applies them.

The lists name what is allowed where the rest is too large to list.
"""

from verl_pipeline.sandbox.launch_command import VISIBLE_PACKAGES

# Standard modules that compute and do nothing else.
PURE_MODULES = frozenset(
    "__future__ abc array ast base64 binascii bisect calendar cmath collections colorsys copy csv "
    "dataclasses datetime decimal difflib enum fractions functools graphlib hashlib heapq html "
    "ipaddress itertools json keyword math numbers operator pprint random re secrets statistics "
    "string struct textwrap time timeit typing unicodedata uuid zlib zoneinfo".split()
)
STAR_MODULES = PURE_MODULES - {"__future__"}
# Of these modules, only what is named here.
ALLOWED_MEMBERS = {
    "contextlib": frozenset(
        "ExitStack closing contextmanager nullcontext redirect_stderr redirect_stdout "
        "suppress".split()
    ),
    "io": frozenset(("BytesIO", "StringIO")),
    "os": frozenset(("path", "sep", "linesep", "name", "getcwd", "pardir", "curdir")),
    "pathlib": frozenset(("Path", "PurePath", "PurePosixPath")),
    "platform": frozenset("python_implementation python_version system".split()),
    "pytest": frozenset("approx fail fixture mark param raises".split()),
    "sys": frozenset(
        "byteorder float_info getrecursionlimit maxsize path platform stderr stdin stdout version "
        "version_info".split()
    ),
    "types": frozenset(("NoneType", "SimpleNamespace")),
    "unittest": frozenset("TestCase expectedFailure skip skipIf skipUnless".split()),
}
# What tests may replace: the channel carries what the program writes and reads there.
REPLACEABLE = frozenset(("sys.stderr", "sys.stdin", "sys.stdout"))
OS_PATH_MEMBERS = frozenset(
    "abspath basename dirname join normpath pardir realpath sep splitext".split()
)
REFUSED_BUILTINS = frozenset(
    "GeneratorExit KeyboardInterrupt __build_class__ __import__ __loader__ __spec__ "
    "breakpoint compile delattr eval exec exit globals help input locals open quit setattr "
    "vars".split()
)
# What changes the process of the tests, so that the program would not notice.
REFUSED_ORIGINS = frozenset(
    "decimal.getcontext decimal.localcontext decimal.setcontext numpy.errstate numpy.random.seed "
    "numpy.random.set_state numpy.seterr random.seed random.setstate".split()
)
REFUSED_ATTRIBUTES = frozenset(
    "__builtins__ __code__ __getattribute__ __globals__ __loader__ __subclasses__ __test__ "
    "add_marker applymarker assertLogs assertNoLogs assertWarns assertWarnsRegex getfixturevalue "
    "skipTest".split()
)
REFUSED_PATH_METHODS = frozenset(
    "chmod exists expanduser glob home is_dir is_file iterdir mkdir open read_bytes read_text "
    "rename rglob rmdir stat touch unlink write_bytes write_text".split()
)
# ``request`` of pytest can also skip tests, add marks and look up fixtures.
REQUEST_MEMBERS = frozenset("addfinalizer cls fixturename instance param scope".split())
INSTALLED = {name.partition(".")[0] for name in VISIBLE_PACKAGES} - {"_pytest", "py", "pytest"}
