"""Runs in a program's own process: executes the program as ``__main__``, or calls its functions.

Nothing here can be trusted once the program has started, because they share a process. To the
judge, all output is untrusted data, and the exit code alone decides no verdict.

Invariants:
* The program sees what it would see as ``python3 solution.py``: ``__main__``, standard streams that
  are files, and none of the jail's modules.
* The process ends as Python ends one (:mod:`interpreter_end`).
"""

import builtins
import os
import symtable
import sys
import types

import value_codec
from exit_codes import NO_FUNCTION, NO_VALUE, RAISED
from interpreter_end import compute_exit_code, end_process, report_exception

# Modules that have executed a prelude already, with the limit of recursion it set, by its text.
_preloaded_preludes: dict = {}


def run_main(prelude, source):
    """Run the program as ``__main__`` and end the process."""
    code = 0
    try:
        _execute_program(prelude, source)
    except BaseException as error:
        code = report_exception(error)
    end_process(code)


def run_calls(prelude, source, entry_point, arguments_list, result):
    """Call ``entry_point`` with each of ``arguments_list``, in order, and end the process.

    Each returned value is encoded and written to descriptor ``result`` at once, as one line.
    """
    code = 0
    try:
        program = LoadedProgram(prelude, source)
        for arguments in arguments_list:
            function = program.find_function(entry_point)
            if function is None:
                print(f"no function {entry_point!r}", file=sys.stderr)
                end_process(NO_FUNCTION)
            returned = function(*value_codec.decode_value(arguments))
            try:
                data = value_codec.encode_value(returned).encode()
            except value_codec.ValueRefused as error:
                print(error, file=sys.stderr)
                end_process(NO_VALUE)
            data += b"\n"
            while data:
                data = data[os.write(result, data) :]
    except SystemExit as error:
        # Even exit(0) is a failure here, because the function has not returned.
        code = compute_exit_code(error) or RAISED
    except BaseException as error:
        code = report_exception(error)
    end_process(code)


def use_program(prelude, source, action):
    """Load the program, call ``action(program)`` and end the process."""
    code = 0
    try:
        action(LoadedProgram(prelude, source))
    except SystemExit as error:
        # Even exit(0) is a failure here, because the program was not to end.
        code = compute_exit_code(error) or RAISED
    except BaseException as error:
        code = report_exception(error)
    end_process(code)


def preload_prelude(prelude):
    """Execute ``prelude`` now, for the one program of each process that is forked later.

    The prelude may set the limit of recursion, which holds for such a program only.
    """
    limit = sys.getrecursionlimit()
    _preloaded_preludes[prelude] = _make_module(prelude, "__main__"), sys.getrecursionlimit()
    sys.setrecursionlimit(limit)


def _make_module(prelude, name):
    module = types.ModuleType(name)
    module.__file__ = "solution.py"
    module.__builtins__ = builtins
    exec(compile(prelude, "prelude.py", "exec", dont_inherit=True), vars(module))
    return module


def _execute_program(prelude, source, name="__main__"):
    """Execute ``prelude`` and then ``source`` in one module.

    They are compiled separately, so that the program may start with ``from __future__``. Returns
    the module and a dict of the names that the prelude defined.
    """
    if prelude in _preloaded_preludes:
        module, limit = _preloaded_preludes.pop(prelude)
        sys.setrecursionlimit(limit)
    else:
        module = _make_module(prelude, name)
    module.__name__ = name
    # Classes of a preloaded prelude have __main__ as their module, so both names must lead here.
    sys.modules[name] = sys.modules["__main__"] = module
    prelude_names = dict(vars(module))
    exec(compile(source, "solution.py", "exec", dont_inherit=True), vars(module))
    return module, prelude_names


class LoadedProgram:
    """A program whose own functions can be found, but not those of the prelude.

    Otherwise, with a prelude of ``from operator import *``, a program without ``add`` would pass
    tests of ``add``.
    """

    def __init__(self, prelude, source):
        self.source = source
        self.module, self.prelude_names = _execute_program(prelude, source, "solution")

    def find_function(self, name):
        """Return the function ``name``, or that method of a new ``Solution()``, or None."""
        found = self._find_own(name)
        if found is None and hasattr(self.module, "Solution"):
            found = getattr(self.module.Solution(), name, None)
        return found if callable(found) else None

    def find_attribute(self, name):
        """Return whatever the program defines as ``name``.

        Raises:
            NameError: it defines no such name.
        """
        found = self._find_own(name)
        if found is None:
            found = self.find_function(name)
        if found is None and name not in vars(self.module):
            raise NameError(f"name {name!r} is not defined")
        return found

    def list_names(self):
        """Return the names that ``from solution import *`` binds."""
        names = getattr(self.module, "__all__", None)
        if names is None:
            names = [name for name in vars(self.module) if not name.startswith("_")]
        return [name for name in names if self._find_own(name) is not None]

    def _find_own(self, name):
        """Return the attribute ``name`` of the module unless it is the prelude's only."""
        found = getattr(self.module, name, None)
        if (
            name in self.prelude_names
            and found is self.prelude_names[name]
            and not self._has_binding(name)
        ):
            return None
        return found

    def _has_binding(self, name):
        """Whether the source itself binds this name, as ``from operator import add`` does."""
        table = symtable.symtable(self.source, "solution.py", "exec")
        if name not in table.get_identifiers():
            return False
        symbol = table.lookup(name)
        return symbol.is_assigned() or symbol.is_imported()
