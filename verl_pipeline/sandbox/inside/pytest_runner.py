"""Runs a pytest file: trusted tests whose module ``solution`` is the program, behind a socket.

Invariants:
* No code of the program runs here (:mod:`assert_runner`), so pytest's report is the verdict.
* pytest sees only the tests that the reader found in the file: names that come from the program are
  never collected.
* Accepted means: exactly these tests were collected, each passed or was skipped or expected to fail
  by a mark of its own, and at least one passed.
* A program neither skips nor ends a test: what it raises arrives as ordinary exceptions, and a skip
  that no mark explains is a failure.
"""

import contextlib
import gc
import importlib
import os
import sys
import traceback
import types

import assert_runner
import blamed_lines
import empty_arrays
import record_table
import solution_module
from exit_codes import (
    PASSED,
    PROGRAM_RAISED,
    RAISED,
    TESTS_ARE_BROKEN,
    TESTS_LACK_A_MODULE,
)

_MODULE_NAME = "test_solution"
# pytest wants a file; it gets this one, which no program can change, and never reads it.
_FOLDER = os.path.dirname(os.path.abspath(__file__))
# Plugins that report, or change what tests see; the reader refuses tests that need one.
_UNUSED_PLUGINS = (
    "cacheprovider doctest faulthandler junitxml legacypath logging pastebin "
    "setuponly setupplan stepwise terminal threadexception tmpdir unraisableexception "
    "warnings".split()
)
_ARGUMENTS = [
    "--exitfirst",
    "--assert=plain",  # rewritten asserts would only explain a failure, which nobody reads
    "--capture=no",  # but for tests that ask for it
    "--noconftest",
    f"--rootdir={_FOLDER}",
    f"--confcutdir={_FOLDER}",  # otherwise pytest looks into the folders above
    "--config-file=/dev/null",
    *(word for name in _UNUSED_PLUGINS for word in ("-p", f"no:{name}")),
    os.path.abspath(__file__),
]


def preload_pytest():
    """Import pytest, for the runs that are forked later; do nothing if it is not installed.

    Not in the warm interpreter: programs would start with its 14 MB, which only tests need.
    """
    if "pytest" not in sys.modules:
        folders = sys.path[:]
        sys.path[:] = folders[1:]  # not from the scratch folder
        with contextlib.suppress(ImportError):
            importlib.import_module("pytest")
        sys.path[:] = folders
        gc.collect()
        gc.freeze()


def run_pytest(source, descriptor, request, star_names, collected):
    """Run the test file ``source``; return the exit code.

    Args:
        descriptor: of the socket to the program.
        request: see :class:`.assert_runner.ProgramClient`.
        star_names: names that ``from solution import *`` binds, of those that the program has.
        collected: number of cases of each test, by ``TestClass::test_name``.
    """
    try:
        import pytest
    except ImportError:
        traceback.print_exc(limit=-1)
        return TESTS_LACK_A_MODULE
    records = record_table.RecordTable({}, first_number=0)
    program = _WatchedClient(descriptor, records, request, _MODULE_NAME, source)
    empty_arrays.refuse_in_comparisons(source)
    empty_arrays.refuse_in_approx(pytest)
    status = None
    report = _Report(pytest, source, program, star_names, collected)
    try:
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        try:
            sys.modules["solution"] = _make_solution_module(program, star_names)
        except (Exception, SystemExit) as error:
            # What the program says of its names is no list of names.
            report.record_failure(PROGRAM_RAISED, _describe_error(error))
        else:
            status = pytest.main(_ARGUMENTS, [report])
    except BaseException:  # the cause is shown with the verdict, which is that of a broken test
        traceback.print_exc()
    if program.no_answer:
        return program.no_answer
    if status != 0 or not report.is_complete():
        message = f"pytest ended with {status!r}, {report.passed} passed"
        report.record_failure(TESTS_ARE_BROKEN, message)
    print(report.message, file=sys.stderr)  # last, below what the program may have written
    return report.failure or PASSED


class _WatchedClient(assert_runner.ProgramClient):
    """Knows whether any value of the program has reached the tests.

    Attributes:
        has_answered: False as long as the tests have only looked up functions and classes.
    """

    has_answered = False

    def send_request(self, kind, *content):
        answer = super().send_request(kind, *content)
        is_lookup = kind in ("names", "describe") or (
            kind == "find" and (not answer or blamed_lines.is_of_program(answer[0]))
        )
        self.has_answered = self.has_answered or not is_lookup
        return answer

    def build_item(self, tag, content, members):
        built = super().build_item(tag, content, members)
        self.has_answered = self.has_answered or isinstance(built, BaseException)
        return built


def _make_solution_module(program, star_names):
    """Return the module ``solution``, of which a star import binds ``star_names`` only.

    Otherwise a program could put names of its own before those of Python and of the tests.
    """
    module = solution_module.SolutionModule(program)
    if star_names:
        names = set(program.list_names())
        vars(module)["__all__"] = [name for name in star_names if name in names]
    return module


def _make_module_class(pytest, source):
    """Return pytest's collector of a module, for a module that is in no file.

    In the tier ``rlimits`` the program can write to the only folder that the tests can write to.
    """

    class TestModule(pytest.Module):
        def _getobj(self):
            module = types.ModuleType(_MODULE_NAME)
            module.__file__ = f"{_MODULE_NAME}.py"
            sys.modules[_MODULE_NAME] = module
            exec(compile(source, module.__file__, "exec", dont_inherit=True), vars(module))
            return module

    return TestModule


class _Report:
    """A plugin that limits what pytest collects, and keeps what it reports.

    Attributes:
        passed: number of tests that passed, without those that were expected to fail.
        failure: exit code of the first failure, or None; ``message`` says what it was.
    """

    def __init__(self, pytest, source, program, star_names, collected):
        self.pytest, self.program = pytest, program
        self.module_class = _make_module_class(pytest, source)
        self.star_names, self.collected = star_names, collected
        # Names of tests and of the classes around them, as pytest looks them up.
        self.known_paths = {
            "::".join(path.split("::")[:length])
            for path in collected
            for length in range(1, path.count("::") + 2)
        }
        self.passed = self.ended = 0
        self.failure = self.error = None
        self.message = ""
        self.may_skip = False

    def pytest_pycollect_makeitem(self, collector, name):
        """Return no tests for a name that holds none; pytest then asks no other plugin.

        pytest asks the plugin that was registered last first, which is this one.
        """
        path = "::".join([*self.list_classes(collector), name])
        return None if path in self.known_paths else []

    def pytest_pycollect_makemodule(self, module_path, parent):
        return self.module_class.from_parent(parent, path=module_path)

    def pytest_runtestloop(self, session):
        """Run no test unless pytest has collected what the reader found."""
        found = {}
        for item in session.items:
            path = "::".join([*self.list_classes(item), item.originalname])
            found[path] = found.get(path, 0) + 1
        if self.failure is None and found != self.collected:
            message = f"pytest collected {found}, not {self.collected}"
            self.record_failure(TESTS_ARE_BROKEN, message)
        return None if self.failure is None else True

    def pytest_exception_interact(self, node, call):
        if not isinstance(node, self.pytest.Collector):
            return
        error = call.excinfo.value
        may_be_of_program = self.program.has_answered or blamed_lines.names_program(
            error, self.program.source, f"{_MODULE_NAME}.py"
        )
        if may_be_of_program or isinstance(error, AssertionError | ImportError):
            self.record_error(error)
        else:  # no program can have caused it
            self.record_failure(TESTS_ARE_BROKEN, _describe_error(error))

    def pytest_runtest_makereport(self, item, call):
        """Keep what the next report is about: the error, and whether a mark may skip the test."""
        self.error = call.excinfo and call.excinfo.value
        # unittest's decorators skip a test when it is called, pytest's marks before.
        self.may_skip = call.when == "setup" or any(
            getattr(skipped, "__unittest_skip__", False) for skipped in (item.obj, item.cls)
        )

    def pytest_runtest_logreport(self, report):
        is_expected = hasattr(report, "wasxfail")
        if report.failed and self.error is not None:
            self.record_error(self.error)
        elif report.failed or (report.skipped and not is_expected and not self.may_skip):
            self.record_failure(RAISED, f"a test {report.outcome} in its {report.when}")
        elif report.when == "call":
            self.passed += report.passed and not is_expected
        if report.when == "teardown":
            self.ended += 1

    def pytest_internalerror(self, excinfo):
        if self.program.has_raised(excinfo.value):  # SystemExit, while pytest imported the file
            self.record_error(excinfo.value)
        code = RAISED if self.program.has_answered else TESTS_ARE_BROKEN
        self.record_failure(code, f"pytest failed: {type(excinfo.value).__name__}")

    def is_complete(self):
        return self.passed > 0 and self.ended == sum(self.collected.values())

    def record_error(self, error):
        self.record_failure(self.classify_error(error), _describe_error(error))

    def classify_error(self, error):
        if any(map(self.program.has_raised, (error, error.__cause__))):
            return PROGRAM_RAISED
        if isinstance(error, ImportError):
            return PROGRAM_RAISED if error.name == "solution" else TESTS_LACK_A_MODULE
        if isinstance(error, NameError) and error.name in self.star_names:
            return PROGRAM_RAISED
        broken = (self.pytest.Collector.CollectError, self.pytest.FixtureLookupError)
        return TESTS_ARE_BROKEN if isinstance(error, broken) else RAISED

    def record_failure(self, code, message):
        if self.failure is None:
            self.failure, self.message = code, message

    def list_classes(self, node):
        """Return the names of the test classes around ``node``."""
        return [one.name for one in node.listchain() if isinstance(one, self.pytest.Class)]


def _describe_error(error):
    """Return one line without what an assertion compares: it would show the expected value."""
    if isinstance(error, AssertionError):
        return "AssertionError"
    return traceback.format_exception_only(error)[-1].strip()
