"""Runs in a program's own process: executes the program as ``__main__``, or calls its functions.

Nothing here can be trusted once the program has started, because they share a process. To the
judge, all output is untrusted data, and the exit code alone decides no verdict.

Invariants:
* The program sees what it would see as ``python3 solution.py``: ``__main__``, standard streams that
  are files, and none of the jail's modules.
* The process ends as Python ends one: it joins threads, runs exit functions and flushes streams.
"""

import atexit
import builtins
import contextlib
import os
import socket
import symtable
import sys
import threading
import traceback
import types
from collections.abc import Iterator

import value_codec
from exit_codes import NO_FUNCTION, NO_SYNTAX, NO_VALUE, RAISED
from messages import receive_message, send_message

# By their text, preludes that were executed already: module, limit of recursion that it set, and a
# dict of its names.
_preloaded_preludes: dict = {}


def run_main(prelude, source):
    """Run the program as ``__main__``; return the exit code."""
    code = 0
    try:
        _execute_program(prelude, source)
    except SystemExit as error:
        code = _get_exit_code(error)
    except BaseException:
        code = _print_exception()
    return _finish_process(code)


def run_calls(prelude, source, entry_point, arguments_list, result):
    """Call ``entry_point`` with each of ``arguments_list``, in order; return the exit code.

    Each returned value is encoded and written to descriptor ``result`` at once, as one line.
    """
    code = 0
    try:
        program = LoadedProgram(prelude, source)
        for arguments in arguments_list:
            function = program.find_function(entry_point)
            if function is None:
                print(f"no function {entry_point!r}", file=sys.stderr)
                return _finish_process(NO_FUNCTION)
            returned = function(*value_codec.decode_value(arguments))
            try:
                data = value_codec.encode_value(returned).encode()
            except value_codec.ValueRefused as error:
                print(error, file=sys.stderr)
                return _finish_process(NO_VALUE)
            data += b"\n"
            while data:
                data = data[os.write(result, data) :]
    except SystemExit as error:
        # Even exit(0) is a failure here, because the function has not returned.
        code = _get_exit_code(error) or RAISED
    except BaseException:
        code = _print_exception()
    return _finish_process(code)


def serve_calls(prelude, source, channel, record_names):
    """Answer the requests that arrive on ``channel`` (a socket's descriptor) until it is closed."""
    code = 0
    try:
        program = LoadedProgram(prelude, source)
        attributes = {name: getattr(program.module, name, None) for name in record_names}
        classes = {name: value for name, value in attributes.items() if isinstance(value, type)}
        with socket.socket(fileno=channel) as requests:
            server = CallServer(program, classes)
            while (request := receive_message(requests)) is not None:
                send_message(requests, server.answer_request(request))
    except SystemExit as error:
        code = _get_exit_code(error) or RAISED
    except BaseException:
        code = _print_exception()
    return _finish_process(code)


class CallServer:
    """Answers the requests of tests.

    Objects of the program's own classes stay here; the tests know only their numbers.
    """

    def __init__(self, program, records):
        self.program, self.records = program, records
        # All objects that the tests know, by number, and those that a call of a class returned.
        self.objects, self.instances = [], []
        self.numbers = {}

    def answer_request(self, request):
        """Return the encoded answer to an encoded request.

        Requests: ``["call", object or None, name, args, kwargs]``, ``["get", object, name]``,
        ``["set", object, name, value]``, ``["next", iterator, ""]``.

        Answers: ``["value", returned value, args after the call]``, ``["callable"]``,
        ``["stopped"]``, ``["raised", type, text]``, ``["refused", text]`` for a value that may not
        cross.
        """
        try:
            kind, owner, name, *rest = value_codec.decode_value(
                request, self.records, self.resolve_reference
            )
            if kind == "next":
                end = object()
                item = next(owner, end)
                return self.encode_answer(["stopped"] if item is end else ["value", item, []])
            if kind == "set":
                setattr(owner, name, *rest)
                return value_codec.encode_value(["value", None, []])
            found = self.program.find_function(name) if owner is None else getattr(owner, name)
            if kind == "get":
                return self.encode_answer(["callable"] if callable(found) else ["value", found, []])
            if found is None:
                return value_codec.encode_value(
                    ["raised", "NameError", f"name {name!r} is not defined"]
                )
            arguments, keywords = rest
            returned = found(*arguments, **keywords)
            if isinstance(found, type):
                self.instances.append(returned)
            return self.encode_answer(["value", returned, arguments])
        except value_codec.ValueRefused as error:
            return value_codec.encode_value(["refused", str(error)])
        except Exception as error:
            # An error class of the program is sent as its nearest built-in base.
            names = [
                base.__name__
                for base in type(error).__mro__
                if getattr(builtins, base.__name__, None) is base
            ]
            # str() of a KeyError would add quotes to its argument.
            has_plain_text = len(error.args) == 1 and type(error.args[0]) is str
            text = error.args[0] if has_plain_text else str(error)
            return value_codec.encode_value(["raised", names[0], text[:1000]])

    def encode_answer(self, answer):
        return value_codec.encode_value(answer, self.records, self.make_reference, opaque=True)

    def resolve_reference(self, reference):
        _kind, number = reference
        return self.objects[number]

    def make_reference(self, item):
        """Return ``[kind, number]`` for an iterator or an object of the program's own classes.

        An instance of a subclass of a built-in type (a named tuple, an IntEnum) is a value, unless
        the tests created it.
        """
        is_own = type(item).__module__ == self.program.module.__name__
        if is_own and isinstance(item, value_codec.BASE_TYPES):
            is_own = any(item is instance for instance in self.instances)
        if not is_own and not isinstance(item, Iterator):
            return None
        if id(item) not in self.numbers:
            self.numbers[id(item)] = len(self.objects)
            self.objects.append(item)  # keeps it alive, so that its id stays unique
        return "object" if is_own else "iterator", self.numbers[id(item)]


def preload_prelude(prelude):
    """Execute ``prelude`` now, for the one program of each process that is forked later.

    The prelude may set the limit of recursion, which holds for such a program only.
    """
    limit = sys.getrecursionlimit()
    module = _make_module(prelude, "__main__")
    _preloaded_preludes[prelude] = module, sys.getrecursionlimit(), dict(vars(module))
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
        # It stays there: to free it would write to the pages of all its objects.
        module, limit, prelude_names = _preloaded_preludes[prelude]
        sys.setrecursionlimit(limit)
    else:
        module = _make_module(prelude, name)
        prelude_names = dict(vars(module))
    module.__name__ = name
    # Classes of a preloaded prelude have __main__ as their module, so both names must lead here.
    sys.modules[name] = sys.modules["__main__"] = module
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
        found = getattr(self.module, name, None)
        if (
            name in self.prelude_names
            and found is self.prelude_names[name]
            and not self._has_binding(name)
        ):
            found = None
        if found is None and hasattr(self.module, "Solution"):
            found = getattr(self.module.Solution(), name, None)
        return found if callable(found) else None

    def _has_binding(self, name):
        """Whether the source itself binds this name, as ``from operator import add`` does."""
        table = symtable.symtable(self.source, "solution.py", "exec")
        if name not in table.get_identifiers():
            return False
        symbol = table.lookup(name)
        return symbol.is_assigned() or symbol.is_imported()


def _get_exit_code(error):
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _print_exception():
    """Print the exception as Python does, without the frames of this file; return the exit code."""
    _type, error, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    with contextlib.suppress(BaseException):
        traceback.print_exception(error.with_traceback(trace))
    return NO_SYNTAX if trace is None and isinstance(error, SyntaxError) else RAISED


def _finish_process(code):
    for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try:
            step()
        except BaseException:
            code = code or _print_exception()
    return code
