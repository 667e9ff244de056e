"""Runs assert-style tests: trusted code that reaches the program through a socket only.

Invariants:
* No code of the program runs here: its functions are stand-ins that send arguments and receive
  copies of plain values.
* Therefore the exit code is the verdict of these tests. One missing or refused answer decides it,
  even if the tests catch the exception; so does one value of the tests that cannot cross.
* Objects of the program's own classes are accepted as answers only where tests expect them. They
  stay in the program's process, which answers for them.
* The program reaches nothing here but the functions and objects of the tests' own that it got as
  arguments, and of these no attribute with two underscores but names. Functions that are not the
  tests' own (``eval``, ``os.system``) cross by name and run in the program's process.
"""

import builtins
import inspect
import socket
import sys
import traceback
import types

import answer_clock
import channel_peer
import empty_arrays
import own_values
import record_table
import remote_objects
import suppression
import value_codec
from exit_codes import (
    NO_VALUE,
    PASSED,
    PROGRAM_ENDED,
    PROGRAM_RAISED,
    RAISED,
    TESTS_CANNOT_CROSS,
    TESTS_LACK_A_MODULE,
)

# What functools.wraps copies from a function.
_NAMING = ("__name__", "__qualname__", "__doc__")


class NoAnswer(BaseException):
    """The program's process has ended, its answer was refused, or the tests cannot ask.

    The supervisor knows why a process has ended. Not an Exception, so that fewer tests catch it.
    """


class _OpaqueArgument(value_codec.ValueRefused):
    """The tests pass on what the program has returned instead of a value."""


class ProgramClient(channel_peer.Peer):
    """Sends requests to the program's process.

    Args:
        descriptor: of a socket; the next one is that of a clock (:mod:`answer_clock`).
        records: a :class:`.record_table.RecordTable`.
        request: of the run: ``names`` of the program that the tests use; ``objects``, whether any
            answer may be an object of the program's own classes, otherwise only the call of one of
            its classes, by its name, may return one; ``max_bytes`` of a message.
        module: the name of the tests' module, whose text is ``source``.

    Attributes:
        no_answer: exit code that a missing or refused answer has decided, or None.
    """

    is_wary = True

    def __init__(self, descriptor, records, request, module, source):
        channel = socket.socket(fileno=descriptor)
        super().__init__(channel, records, ("tests", module), request["max_bytes"])
        self._clock, self.source = descriptor + 1, source
        self._objects = request["objects"]
        self._may_be_object, self._kind = self._objects, "find"
        # Numbers of the classes that the tests have found by name, and of all that they have got.
        self._constructors, self._classes = set(), set()
        self._raised = []
        self.no_answer = None

    def find_attribute(self, name):
        """Return the program's function, class or constant ``name``; raise NameError if none."""
        content = self.send_request("find", name)
        found = content[0] if content else remote_objects.RemoteFunction(self, None, name)
        if self._objects or not remote_objects.is_stand_in(found):
            return found
        # By convention the name of a class starts with a capital letter.
        if not isinstance(found, remote_objects.RemoteClass) or not name[:1].isupper():
            return remote_objects.RemoteFunction(self, None, name)
        self._constructors.add(found._number)
        return found

    def list_names(self):
        """Return the names that a star import binds."""
        (names,) = self.send_request("names")
        return [name for name in names if type(name) is str]

    def has_raised(self, error):
        """Whether ``error`` came from the program."""
        return any(error is raised for raised in self._raised)

    def send_request(self, kind, *content):
        if self.no_answer is not None:
            raise NoAnswer
        before = self._may_be_object, self._kind
        is_construction = self._is_construction(kind, content)
        self._may_be_object = self._objects or is_construction
        self._kind = "construct" if is_construction else kind
        try:
            self._check_attribute(kind, content)
            return super().send_request(kind, *content)
        except (OSError, EOFError) as error:
            if self.has_raised(error):
                raise
            self.no_answer = PROGRAM_ENDED
            raise NoAnswer from None
        except value_codec.ValueRefused as refusal:
            self.refuse_answer(str(refusal))
        finally:
            self._may_be_object, self._kind = before

    def _is_construction(self, kind, content):
        if kind != "call" or content[1] is not None:
            return False
        owner = content[0]
        is_class = isinstance(owner, remote_objects.RemoteClass)
        return is_class and owner._number in self._constructors

    def _check_attribute(self, kind, content):
        """Refuse methods of a function that was returned: they could answer as tests expect."""
        if kind == "get" and not self._objects:
            is_function = isinstance(content[0], remote_objects.RemoteFunction)
            if is_function and content[0]._number is not None:
                raise value_codec.ValueRefused("a function where a value is expected")

    def _check_item(self, item):
        """Refuse what has methods like an object, as an answer that is to be a value."""
        if isinstance(item, types.SimpleNamespace) and not self._may_be_object:
            if any(map(remote_objects.is_stand_in, vars(item).values())):
                raise value_codec.ValueRefused("an object with methods where a value is expected")
        if isinstance(item, remote_objects.RemoteClass):
            if self._kind in ("find", "get", "construct"):
                self._classes.add(item._number)
            elif self._kind != "describe" and item._number not in self._classes:
                raise value_codec.ValueRefused("a class where a value is expected")

    def build_item(self, tag, content, members):
        built = super().build_item(tag, content, members)
        if isinstance(built, BaseException):
            self._raised.append(built)
        if not self._objects:
            self._check_item(built)
        return built

    def allow_stand_in(self, kind, number):
        if kind == "object" and not self._may_be_object:
            raise value_codec.ValueRefused("an object where a value is expected")

    def check_owner(self, owner, *kinds):
        kind, _number = self._sent.get(id(owner), (None, None))
        if kind is None or (kinds and kind not in kinds):
            raise value_codec.ValueRefused("a request for an object that was never sent")

    def check_name(self, name):
        if type(name) is not str or name.startswith("__") and name not in _NAMING:
            raise value_codec.ValueRefused(f"an attribute {name!r}")

    def check_change(self, owner, name):
        super().check_change(owner, name)
        is_class = isinstance(owner, type)
        kind = owner if is_class else type(owner)
        is_computed = is_class and hasattr(record_table.find_member(kind, name), "__get__")
        if is_computed or record_table.is_method(kind, name):
            raise value_codec.ValueRefused(f"a change of the method {name!r}")

    def may_suppress(self, error, error_traceback, answered):
        """Whether a context of the program may hide an error of its block; see :mod:`suppression`.

        ``answered`` is the number of answers before the block.
        """
        if not isinstance(error, Exception) or isinstance(error, AssertionError):
            return False
        line = error_traceback.tb_lineno
        return self.answered == answered or suppression.skips_no_check(self.source, line)

    def encode_request(self, kind, content):
        try:
            return super().encode_request(kind, content)
        except _OpaqueArgument as error:
            self.refuse_answer(str(error))
        except value_codec.ValueRefused as error:
            self.refuse_own(str(error))

    def refuse_answer(self, reason):
        """Give up: the program has sent what it may not send."""
        self.no_answer = self.no_answer or NO_VALUE
        raise NoAnswer(reason)

    def refuse_own(self, reason):
        """Give up: the tests need what cannot cross, whatever the program is."""
        self.no_answer = self.no_answer or TESTS_CANNOT_CROSS
        raise NoAnswer(f"the tests send the program {reason}, which cannot cross")

    def send_text(self, text):
        with answer_clock.awaiting(self._clock):
            super().send_text(text)

    def receive_text(self):
        # Only this: to decode a large answer is the tests' turn, in which the program may be idle.
        with answer_clock.awaiting(self._clock):
            return super().receive_text()

    def receive_message(self):
        while (message := super().receive_message())[0] == "output":
            _output, descriptor, text = message
            (sys.stderr if descriptor == 2 else sys.stdout).write(text)
        return message

    def answer_request(self, kind, *content):
        if kind != "read_line":
            return super().answer_request(kind, *content)
        return ["value", _read_line(*content)]

    def export_item(self, item):
        name = own_values.find_built_in(item)
        return super().export_item(item) if name is None else (channel_peer.NAMED, name, [])

    def find_kind(self, item):
        if own_values.comes_from_program(item):
            raise _OpaqueArgument("an object that is no value, as an argument")
        return own_values.find_kind(item, self.own_modules)


def _read_line(size):
    """Return a line of what the tests have put in place of ``input`` or standard input."""
    if builtins.input is _original_input:
        return sys.stdin.readline(size)
    prompts = [""]
    try:
        inspect.signature(builtins.input).bind(*prompts)
    except TypeError:
        prompts = []
    try:
        return f"{builtins.input(*prompts)}\n"
    except (EOFError, StopIteration):
        return ""


_original_input = input


def run_asserts(prelude, source, descriptor, request):
    """Run the tests in ``source``, whose ``names`` are the program's; return the exit code."""
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    scope = vars(module)
    scope["__builtins__"] = builtins
    records = record_table.RecordTable({}, first_number=0)
    program = ProgramClient(descriptor, records, request, "tests", source)
    code = PASSED
    empty_arrays.refuse_in_comparisons(source)
    try:
        exec(compile(prelude, "prelude.py", "exec", dont_inherit=True), scope)
        records.classes |= {name: scope[name] for name in request["records"]}
        for name in request["names"]:
            scope[name] = _find_or_call(program, name)
        exec(compile(source, "tests.py", "exec", dont_inherit=True), scope)
    except BaseException as error:
        traceback.print_exc(limit=-1)
        if program.has_raised(error):
            code = PROGRAM_RAISED
        else:
            code = TESTS_LACK_A_MODULE if isinstance(error, ImportError) else RAISED
    return program.no_answer or code


def _find_or_call(program, name):
    """Return what the program defines as ``name``; else a function whose calls raise NameError."""
    try:
        return program.find_attribute(name)
    except NameError:
        return remote_objects.RemoteFunction(program, None, name)
