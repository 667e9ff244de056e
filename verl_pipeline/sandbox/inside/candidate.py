"""What runs in a program's own process: the program as ``__main__``, or calls into it.

Nothing here can be trusted once the program has started: it shares this process. What it writes is
data to the judge, and its exit code decides no verdict alone.

Invariants:
* The program sees what it would see as ``python3 solution.py``: ``__main__``, standard streams on
  files, no modules of the jail.
* A program ends as Python ends one: threads are waited for, exit functions run, streams are
  flushed.
"""

import atexit
import builtins
import contextlib
import gc
import io
import os
import socket
import symtable
import sys
import threading
import traceback
import types
from collections.abc import Iterator

import values
from exits import NO_FUNCTION, NO_SYNTAX, NO_VALUE, RAISED
from messages import receive, send

# No descriptor of a process that is about to become a program has this number, and its limit allows
# it.
_ABOVE = 100
_ready: dict = {}


def run(prelude, source):
    """The program, as ``__main__``; returns the exit code."""
    code = 0
    try:
        _execute(prelude, source)
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:
        code = _report()
    return _end(code)


def call(prelude, source, entry_point, arguments, result):
    """``entry_point(*arguments)`` for each of ``arguments``, one after another; returns the exit
    code.

    What each returns goes to descriptor ``result`` when it is known, encoded, as a line.
    """
    code = 0
    try:
        program = Program(prelude, source)
        for each in arguments:
            function = program.find(entry_point)
            if function is None:
                print(f"no function {entry_point!r}", file=sys.stderr)
                return _end(NO_FUNCTION)
            returned = function(*values.decode(each))
            try:
                data = values.encode(returned).encode()
            except values.ValueRefused as error:
                print(error, file=sys.stderr)
                return _end(NO_VALUE)
            data += b"\n"
            while data:
                data = data[os.write(result, data) :]
    except SystemExit as error:
        code = _exit_code(error) or RAISED  # it never returned
    except BaseException:
        code = _report()
    return _end(code)


def serve(prelude, source, channel, records):
    """Questions that come over ``channel`` (a socket's descriptor), one after another, until it
    ends.
    """
    code = 0
    try:
        program = Program(prelude, source)
        found = {name: getattr(program.module, name, None) for name in records}
        classes = {name: each for name, each in found.items() if isinstance(each, type)}
        with socket.socket(fileno=channel) as asked:
            answers = Answers(program, classes)
            while (question := receive(asked)) is not None:
                send(asked, answers.to(question))
    except SystemExit as error:
        code = _exit_code(error) or RAISED
    except BaseException:
        code = _report()
    return _end(code)


class Answers:
    """Answers what tests ask; objects of the program's own classes stay here, the tests know their
    numbers.
    """

    def __init__(self, program, records):
        self.program, self.records = program, records
        self.objects, self.instances = [], []
        self.numbers = {}

    def to(self, question):
        """Questions: ``["call", object or None, name, args, kwargs]``, ``["get", object, name]``,
        ``["set", object, name, value]``, ``["next", iterator, ""]``; answers: ``["value", returned,
        args as they are now]``, ``["callable"]``, ``["stopped"]``, ``["raised", type, text]``,
        ``["refused", text]``: what may not cross.
        """
        try:
            kind, owner, name, *rest = values.decode(question, self.records, self.referred)
            if kind == "next":
                ended = object()
                found = next(owner, ended)
                return self.encoded(["stopped"] if found is ended else ["value", found, []])
            if kind == "set":
                setattr(owner, name, *rest)
                return values.encode(["value", None, []])
            found = self.program.find(name) if owner is None else getattr(owner, name)
            if kind == "get":
                return self.encoded(["callable"] if callable(found) else ["value", found, []])
            if found is None:
                return values.encode(["raised", "NameError", f"name {name!r} is not defined"])
            arguments, keywords = rest
            returned = found(*arguments, **keywords)
            if isinstance(found, type):
                self.instances.append(returned)
            return self.encoded(["value", returned, arguments])
        except values.ValueRefused as error:
            return values.encode(["refused", str(error)])
        except Exception as error:
            # An error class of the program's own is sent as the built-in one it is based on.
            names = [
                base.__name__
                for base in type(error).__mro__
                if getattr(builtins, base.__name__, None) is base
            ]
            plain = (
                len(error.args) == 1 and type(error.args[0]) is str
            )  # str() of a KeyError quotes it
            return values.encode(
                ["raised", names[0], (error.args[0] if plain else str(error))[:1000]]
            )

    def encoded(self, answer):
        return values.encode(answer, self.records, self.reference, opaque=True)

    def referred(self, reference):
        _kind, number = reference
        return self.objects[number]

    def reference(self, item):
        """``[kind, number]`` of an iterator, or of an object of the program's own classes.

        What is based on a built-in type (a named tuple, an IntEnum) is a value, unless the tests
        made it.
        """
        own = type(item).__module__ == self.program.module.__name__
        if own and isinstance(item, values.BASES):
            own = any(item is each for each in self.instances)
        if not own and not isinstance(item, Iterator):
            return None
        if id(item) not in self.numbers:
            self.numbers[id(item)] = len(self.objects)
            self.objects.append(item)  # alive, so that its id is nobody else's
        return "object" if own else "iterator", self.numbers[id(item)]


def have_ready(prelude):
    """Run ``prelude`` in a module that the one program of this process will be; it may set the
    limit of recursion.
    """
    limit = sys.getrecursionlimit()
    _ready[prelude] = _begun(prelude, "__main__"), sys.getrecursionlimit()
    sys.setrecursionlimit(limit)


def _begun(prelude, name):
    module = types.ModuleType(name)
    module.__file__ = "solution.py"
    module.__builtins__ = builtins
    exec(compile(prelude, "prelude.py", "exec", dont_inherit=True), vars(module))
    return module


def _execute(prelude, source, name="__main__"):
    """A module of ``prelude``, then ``source``: apart, so that the program may begin with ``from
    __future__``.

    Returns the module, and what the prelude had put into it.
    """
    if prelude in _ready:
        module, limit = _ready.pop(prelude)
        sys.setrecursionlimit(limit)
    else:
        module = _begun(prelude, name)
    module.__name__ = name
    # Classes of a prelude that was ready say that they are of __main__.
    sys.modules[name] = sys.modules["__main__"] = module
    lent = dict(vars(module))
    exec(compile(source, "solution.py", "exec", dont_inherit=True), vars(module))
    return module, lent


class Program:
    """A program whose functions are asked for: those it has itself, none that the prelude has lent
    it.

    With ``from operator import *`` in front, a program without ``add`` would otherwise pass tests
    of ``add``.
    """

    def __init__(self, prelude, source):
        self.source = source
        self.module, self.lent = _execute(prelude, source, "solution")

    def find(self, name):
        """The function ``name``, or that method of the class ``Solution``, which is instantiated."""
        found = getattr(self.module, name, None)
        if name in self.lent and found is self.lent[name] and not self._binds(name):
            found = None
        if found is None and hasattr(self.module, "Solution"):
            found = getattr(self.module.Solution(), name, None)
        return found if callable(found) else None

    def _binds(self, name):
        """Whether the source itself gives something this name, as with ``from operator import
        add``.
        """
        table = symtable.symtable(self.source, "solution.py", "exec")
        if name not in table.get_identifiers():
            return False
        symbol = table.lookup(name)
        return symbol.is_assigned() or symbol.is_imported()


def _exit_code(error):
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _report():
    """The exception as Python prints it, without the frames of this file."""
    _type, error, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    with contextlib.suppress(BaseException):
        traceback.print_exception(error.with_traceback(trace))
    return NO_SYNTAX if trace is None and isinstance(error, SyntaxError) else RAISED


def _end(code):
    for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try:
            step()
        except BaseException:
            code = code or _report()
    return code


def prepare(stdin, stdout, stderr, keep, ready):
    """Descriptors and streams of a new Python process; of all other descriptors ``keep`` stays, as
    number 3.

    Returns ``ready`` under its new number, to be closed before the program starts.
    """
    ready = os.dup2(ready, _ABOVE, inheritable=False)
    if keep is not None:
        keep = os.dup2(keep, _ABOVE + 1)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    if keep is not None:
        os.dup2(keep, 3)
    os.closerange(3 if keep is None else 4, ready)
    os.closerange(ready + 1, 1 << 20)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0, closefd=False), "utf-8", "backslashreplace", write_through=True
    )
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    sys.argv = ["solution.py"]
    gc.enable()
    return ready


def forget_the_jail(names):
    """Take the jail's own modules out of the program's sight; nothing in them is secret."""
    for name in names:
        sys.modules.pop(name, None)
    sys.path[0] = os.getcwd()
