"""Runs assert-style tests: trusted code that reaches the program through a socket only.

Invariants:
* No code of the program runs here: its functions are stand-ins that send arguments and receive
  exact built-in values.
* Therefore the exit code is the verdict of these tests. One missing or refused answer decides it,
  even if the tests catch the exception.
* Objects of the program's own classes are accepted as answers only where tests expect them. They
  stay in the program's process, which answers for them.
"""

import builtins
import functools
import socket
import sys
import traceback
import types

import answer_clock
import messages
import value_codec
from exit_codes import (
    NO_VALUE,
    PASSED,
    PROGRAM_ENDED,
    PROGRAM_RAISED,
    RAISED,
    TESTS_LACK_A_MODULE,
)

# Kinds of answers that each kind of request allows.
_ALLOWED_ANSWERS = {
    "call": ("value", "raised"),
    "get": ("value", "raised", "callable"),
    "set": ("value", "raised"),
    "next": ("value", "raised", "stopped"),
}


class NoAnswer(BaseException):
    """The program's process has ended, or its answer was refused.

    The supervisor knows why the process has ended. Not an Exception, so that fewer tests catch it.
    """


class ProgramClient:
    """Sends requests to the program's process.

    Args:
        descriptor: of the channel; the next one is that of a clock (:mod:`answer_clock`).

    Attributes:
        objects: whether any answer may be an object of the program's own classes; otherwise only
            the call of a class may return one.
        no_answer: exit code that a missing or refused answer has decided, or None.
    """

    def __init__(self, descriptor, record_names, objects):
        self.channel, self.clock = socket.socket(fileno=descriptor), descriptor + 1
        self.record_names, self.objects = record_names, objects
        self.records = {}
        self.known_numbers = set()
        self.raised_errors = []
        self.no_answer = None

    def call_function(self, owner, name, arguments, keywords):
        """Return what the program's function returned; update mutable ``arguments`` in place."""
        returned, changed_arguments = self.send_request(
            "call", owner, name, list(arguments), keywords
        )
        for ours, theirs in zip(arguments, changed_arguments, strict=False):
            _copy_into(ours, theirs)
        return returned

    def send_request(self, *request):
        """Return the program's answer, or raise what the program raised."""
        request_kind, owner, name, *_rest = request
        # By convention the name of a class starts with a capital letter.
        objects = self.objects or (owner is None and name[:1].isupper())
        try:
            message = value_codec.encode_value(list(request), self.record_names, _get_reference)
            with answer_clock.awaiting(self.clock):
                messages.send_message(self.channel, message)
                answer = messages.receive_message(self.channel)
            if answer is None:
                raise NoAnswer
            kind, *content = value_codec.decode_value(
                answer,
                self.records,
                functools.partial(self.make_remote_object, may_be_new=objects),
            )
            if kind == "refused":
                raise value_codec.ValueRefused(*content)
            if kind not in _ALLOWED_ANSWERS[request_kind] or (
                kind == "value" and (len(content) != 2 or type(content[1]) is not list)
            ):
                raise value_codec.ValueRefused(f"an answer {kind!r} to {request_kind!r}")
            error = _make_error(*content) if kind == "raised" else None
        except (OSError, NoAnswer):
            self.no_answer = PROGRAM_ENDED
            raise NoAnswer from None
        except (ValueError, TypeError) as refusal:
            self.no_answer = NO_VALUE
            raise NoAnswer(f"{name}: {refusal}") from None
        if error is not None:
            self.raised_errors.append(error)
            raise error
        return content

    def make_remote_object(self, reference, may_be_new):
        """Return the stand-in for an iterator or an object of the program.

        Unless ``may_be_new``, an object must have been returned before.
        """
        kind, number = reference
        if type(number) is not int or not (
            may_be_new or kind == "iterator" or number in self.known_numbers
        ):
            raise value_codec.ValueRefused("an object where a value is expected")
        if kind == "iterator":
            return RemoteIterator(self, number)
        self.known_numbers.add(number)
        return RemoteObject(self, number)


class RemoteObject:
    """An object of a class of the program; its attributes are read and set over the channel."""

    def __init__(self, program, number):
        # Not by assignment, which __setattr__ would send to the program.
        vars(self).update(_program=program, _number=number)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        content = self._program.send_request("get", self, name)
        if content:
            return content[0]
        return lambda *arguments, **keywords: self._program.call_function(
            self, name, arguments, keywords
        )

    def __setattr__(self, name, value):
        self._program.send_request("set", self, name, value)


class RemoteIterator:
    """An iterator of the program; it yields values."""

    def __init__(self, program, number):
        self._program, self._number = program, number

    def __iter__(self):
        return self

    def __next__(self):
        content = self._program.send_request("next", self, "")
        if not content:
            raise StopIteration
        return content[0]


def _get_reference(item):
    if type(item) in (RemoteObject, RemoteIterator):
        return "object" if type(item) is RemoteObject else "iterator", item._number
    return None


def _make_error(name, text):
    """Return an exception of the built-in class ``name``, or of its nearest suitable base."""
    cls = getattr(builtins, name, Exception)
    if cls in (StopIteration, StopAsyncIteration):  # these would end a loop of the tests
        cls = RuntimeError
    if not (isinstance(cls, type) and issubclass(cls, Exception)):
        return Exception(text)
    # Some classes need more arguments than a text (UnicodeDecodeError): a base of theirs does not.
    for base in cls.__mro__:
        try:
            return base(text)
        except TypeError:
            continue


def _copy_into(ours, theirs):
    if type(ours) is not type(theirs):
        return
    if type(ours) is list:
        ours[:] = theirs
    elif type(ours) in (dict, set):
        ours.clear()
        ours.update(theirs)
    elif hasattr(ours, "__dict__") and not isinstance(ours, type):
        vars(ours).clear()
        vars(ours).update(vars(theirs))


def run_asserts(prelude, source, descriptor, names, record_names, objects):
    """Run the tests in ``source``, whose ``names`` are the program's; return the exit code."""
    program = ProgramClient(descriptor, record_names, objects)
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    scope = vars(module)
    scope["__builtins__"] = builtins
    code = PASSED
    _patch_allclose()
    try:
        exec(compile(prelude, "prelude.py", "exec", dont_inherit=True), scope)
        program.records = {name: scope[name] for name in record_names}
        for name in names:
            scope[name] = _make_function_stand_in(program, name)
        exec(compile(source, "tests.py", "exec", dont_inherit=True), scope)
    except BaseException as error:
        traceback.print_exc(limit=-1)
        if any(error is raised for raised in program.raised_errors):
            code = PROGRAM_RAISED
        else:
            code = TESTS_LACK_A_MODULE if isinstance(error, ImportError) else RAISED
    return program.no_answer or code


def _patch_allclose():
    """Make numpy.allclose false for an empty array and a non-empty one.

    numpy broadcasts an empty array to any shape, and all() of no elements is true, so that
    HumanEval+ would accept ``[]`` for every number.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        original = numpy.allclose

        def allclose(a, b, *arguments, **keywords):
            return bool(numpy.size(a)) == bool(numpy.size(b)) and original(
                a, b, *arguments, **keywords
            )

        numpy.allclose = allclose


def _make_function_stand_in(program, name):
    def call_program(*arguments, **keywords):
        return program.call_function(None, name, arguments, keywords)

    call_program.__name__ = name
    return call_program
