"""Pytest files that cannot be graded on all their tests are refused when they are read."""

import pytest

from verl_pipeline.grading.readers import BadRow, read_kodcode

_HEAD = "import pytest\nfrom solution import add\n"
_TEST = "def test_a():\n    assert add(1, 2) == 3\n"


def _make_test(body: str, arguments: str = "") -> str:
    return f"{_HEAD}def test_a({arguments}):\n    {body}\n"


NOTHING_TO_RUN = {
    "empty": "",
    "no-import": "def test_a():\n    assert True\n",
    "import-under-main-guard": f"if __name__ == '__main__':\n    from solution import add\n{_TEST}",
    "no-test": f"{_HEAD}def check_a():\n    assert add(1, 2) == 3\n",
    "all-skipped": f"{_HEAD}@pytest.mark.skip\n{_TEST}",
    "all-expected-to-fail": f"{_HEAD}pytestmark = pytest.mark.xfail\n{_TEST}",
    "empty-parametrize": f"{_HEAD}@pytest.mark.parametrize('a', [])\ndef test_a(a):\n"
    "    add(a, 1)\n",
}
NOT_RUN_AS_WRITTEN = {
    "shadowed": f"{_HEAD}{_TEST}{_TEST}",
    "shadowed-method": f"{_HEAD}class TestA:\n"
    + 2 * "    def test_a(self):\n        assert add(1, 2) == 3\n",
    "asynchronous": f"{_HEAD}{_TEST}async def test_b():\n    assert add(1, 2) == 3\n",
    "asynchronous-method": f"{_HEAD}{_TEST}class TestB:\n    async def test_b(self):\n"
    "        pass\n",
    "generator": f"{_HEAD}{_TEST}def test_b():\n    yield add(1, 2)\n",
    "nested": f"{_HEAD}{_TEST}def test_b():\n    def test_c():\n        assert add(1, 2) == 4\n",
    "under-if": f"{_HEAD}{_TEST}if add:\n    def test_b():\n        assert add(1, 2) == 4\n",
    "under-try": f"{_HEAD}{_TEST}try:\n    def test_b():\n        pass\nexcept OSError:\n"
    "    pass\n",
    "in-loop": f"{_HEAD}{_TEST}for i in (1, 2):\n    def test_b():\n"
    "        assert add(i, 2) == 4\n",
    "class-with-constructor": f"{_HEAD}{_TEST}class TestB:\n    def __init__(self):\n"
    "        pass\n    def test_b(self):\n        assert add(1, 2) == 4\n",
    "class-of-other-name": f"{_HEAD}{_TEST}class Checks:\n    def test_b(self):\n        pass\n",
    "not-a-test": f"{_HEAD}{_TEST}class TestB:\n    __test__ = False\n    def test_b(self):\n"
    "        pass\n",
    "file-not-a-test": f"{_HEAD}__test__ = False\n{_TEST}",
    "deleted": f"{_HEAD}{_TEST}def test_b():\n    pass\ndel test_b\n",
    "assigned": f"{_HEAD}{_TEST}test_b = test_a\n",
    "assigned-lambda": f"{_HEAD}{_TEST}test_b = lambda: add(1, 2)\n",
    "made-by-a-call": f"{_HEAD}def make():\n    return lambda: None\n{_TEST}test_b = make()\n",
    "set-attribute": f"{_HEAD}{_TEST}test_a.__test__ = False\n",
    "globals": f"{_HEAD}{_TEST}globals()['test_b'] = test_a\n",
    "hook": f"{_HEAD}{_TEST}def pytest_generate_tests(metafunc):\n    pass\n",
    "plugins": f"{_HEAD}pytest_plugins = ['x']\n{_TEST}",
    "decorator-of-its-own": f"{_HEAD}def once(f):\n    return None\n@once\n{_TEST}",
    "imported-test": f"from solution import test_a\n{_TEST.replace('test_a', 'test_b')}",
    "uncountable-cases": f"{_HEAD}@pytest.mark.parametrize('a', add(1, 2))\ndef test_a(a):\n"
    "    pass\n",
    "filtered-cases": f"{_HEAD}@pytest.mark.parametrize('a', [i for i in (1, 2) if add(i, 1)])\n"
    "def test_a(a):\n    pass\n",
    "grown-cases": f"{_HEAD}CASES = [1]\nCASES.append(2)\n"
    "@pytest.mark.parametrize('a', CASES)\ndef test_a(a):\n    pass\n",
    "wrong-number-of-values": f"{_HEAD}@pytest.mark.parametrize('a, b', [(1, 2, 3)])\n"
    "def test_a(a, b):\n    pass\n",
    "unused-parameter": f"{_HEAD}@pytest.mark.parametrize('b', [1])\ndef test_a():\n    pass\n",
    "unittest-run-test": f"{_HEAD}import unittest\nclass A(unittest.TestCase):\n"
    "    def runTest(self):\n        self.assertEqual(add(1, 2), 3)\n",
    "unittest-asynchronous": f"{_HEAD}import unittest\n{_TEST}"
    "class A(unittest.IsolatedAsyncioTestCase):\n    async def test_b(self):\n        pass\n",
    "unittest-arguments": f"{_HEAD}import unittest\nclass A(unittest.TestCase):\n"
    "    def test_a(self, x):\n        pass\n",
}
SKIPPED_AT_RUN_TIME = {
    "skip": _make_test("pytest.skip('x')"),
    "skip-if-wrong": _make_test("if add(1, 2) != 3: pytest.skip('x')"),
    "xfail": _make_test("pytest.xfail('x')"),
    "exit": _make_test("pytest.exit('x', 0)"),
    "importorskip": f"import pytest\ns = pytest.importorskip('solution')\n"
    f"from solution import *\n{_TEST}",
    "imported-skip": f"from pytest import skip\nfrom solution import add\n{_TEST}",
    "skip-exception": f"{_HEAD}from unittest import SkipTest\n{_TEST}",
    "skip-test": f"{_HEAD}import unittest\nclass A(unittest.TestCase):\n    def test_a(self):\n"
    "        self.skipTest('x')\n",
    "skipif-program": f"{_HEAD}@pytest.mark.skipif(add(1, 2) != 3, reason='x')\n{_TEST}",
    "skipif-text": f"{_HEAD}@pytest.mark.skipif('add(1, 2) != 3', reason='x')\n{_TEST}",
    "xfail-program": f"{_HEAD}@pytest.mark.xfail(add(1, 2) != 3, reason='x')\n{_TEST}",
    "add-marker": _make_test("request.node.add_marker(pytest.mark.xfail)", "request"),
    "sys-exit": f"{_HEAD}import sys\n{_TEST}sys.exit(0)\n",
    "os-exit": f"{_HEAD}import os\n{_TEST}os._exit(0)\n",
    "eval": _make_test("assert eval(add('1', '2')) == 12"),
    "exec": _make_test("exec(add('x = 1', ''))"),
    "builtins-eval": f"{_HEAD}import builtins\n{_TEST}",
}
CANNOT_CROSS = {
    "capfd": _make_test("add(1, 2)", "capfd"),
    "base-of-the-program": f"{_HEAD}def test_a():\n    class Mine(add):\n        pass\n",
    "base-of-a-star": f"from solution import *\n{_TEST}def test_b():\n    class B(Base):\n"
    "        pass\n",
    "base-of-the-module": f"import solution\n{_HEAD}{_TEST}def test_b():\n"
    "    class B(int, solution.Base):\n        pass\n",
    "caplog": _make_test("add(1, 2)", "caplog"),
    "recwarn": _make_test("add(1, 2)", "recwarn"),
    "monkeypatch": _make_test("monkeypatch.setattr('builtins.input', lambda: '3')", "monkeypatch"),
    "tmp_path": _make_test("add(tmp_path / 'x', 2)", "tmp_path"),
    "capfd-through-fixture": f"{_HEAD}@pytest.fixture\ndef out(capfd):\n    return capfd\n"
    "def test_a(out):\n    add(1, 2)\n",
    "unknown-fixture": _make_test("add(1, 2)", "mocker"),
    "fixture-of-narrow-scope": f"{_HEAD}@pytest.fixture\ndef one():\n    return 1\n"
    "@pytest.fixture(scope='module')\ndef two(one):\n    return 2\ndef test_a(two):\n    pass\n",
    "getfixturevalue": _make_test("request.getfixturevalue('capsys')", "request"),
    "mock": f"from unittest.mock import patch\n{_HEAD}@patch('solution.add')\n{_TEST}",
    "mock-of-unittest": f"import unittest.mock\n{_HEAD}{_TEST}",
    "replaced-name": f"import solution\n{_TEST.replace('add', 'solution.add')}solution.add = len\n",
    "replaced-argv": f"{_HEAD}import sys\n{_TEST}sys.argv = ['x']\n",
    "warns": _make_test("with pytest.warns(UserWarning): add(1, 2)"),
    "open": _make_test("assert open(add('a', 'b')).read() == ''"),
    "path-read": f"{_HEAD}from pathlib import Path\n" + _TEST + "    Path('x').read_text()\n",
    "environment": f"{_HEAD}import os\n{_TEST}os.environ['X'] = '1'\n",
    "random-seed": f"{_HEAD}import random\nrandom.seed(1)\n{_TEST}",
    "numpy-seed": f"{_HEAD}import numpy as np\nnp.random.seed(1)\n{_TEST}",
    "decimal-context": f"{_HEAD}from decimal import getcontext\ngetcontext().prec = 9\n{_TEST}",
    "recursion-limit": f"{_HEAD}import sys\nsys.setrecursionlimit(9999)\n{_TEST}",
    "interrupt": _make_test("with pytest.raises(KeyboardInterrupt): add(1, 2)"),
    "threads": f"{_HEAD}import threading\n{_TEST}",
    "subclass-of-the-program": "import solution\nclass A(solution.B):\n    pass\n"
    "def test_a():\n    assert A()\n",
}
CANNOT_BE_READ = {
    "syntax": f"{_HEAD}def test_a(:\n",
    "compile-time": f"{_HEAD}def test_a(x, x):\n    pass\n",
    "null": f"{_HEAD}{_TEST}\0",
    "relative": f"from .solution import add\n{_TEST}",
    "relative-module": f"from . import solution\n{_TEST}",
    "submodule": f"from solution.adders import add\n{_TEST}",
    "missing-package": f"import pandas as pd\n{_HEAD}{_TEST}",
    "missing-package-inside": _make_test("import requests"),
    "undefined-name": f"{_HEAD}{_TEST}    assert math.pi\n",
    "star-and-a-star": f"from solution import *\nfrom numpy import *\n{_TEST}",
    "two-meanings": f"from solution import f as add\n{_HEAD}{_TEST}",
}
REFUSED = {
    f"{kind}-{name}": source
    for kind, sources in {
        "nothing": NOTHING_TO_RUN,
        "not-as-written": NOT_RUN_AS_WRITTEN,
        "skipped": SKIPPED_AT_RUN_TIME,
        "cannot-cross": CANNOT_CROSS,
        "unreadable": CANNOT_BE_READ,
    }.items()
    for name, source in sources.items()
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_graded_in_full_is_refused(name):
    with pytest.raises(BadRow, match=f"^kodcode/{name}: ."):
        read_kodcode(REFUSED[name], name=name)


def test_what_is_missing_is_named():
    for source, named in (
        (CANNOT_BE_READ["missing-package"], "pandas"),
        (CANNOT_CROSS["unknown-fixture"], "mocker"),
        (CANNOT_BE_READ["undefined-name"], "math"),
        (NOT_RUN_AS_WRITTEN["asynchronous"], "test_b is asynchronous"),
    ):
        with pytest.raises(BadRow, match=named):
            read_kodcode(source, name="row")


def test_a_deeply_nested_file_is_refused():
    with pytest.raises(BadRow):
        read_kodcode(f"{_HEAD}{_TEST}x = {'(' * 150}1{')' * 150}{'+1' * 20_000}\n", name="deep")
