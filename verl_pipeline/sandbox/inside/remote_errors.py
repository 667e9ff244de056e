"""Exceptions that cross between the program and its tests.

Invariants:
* An exception arrives as one of a built-in class, of a class of the standard library, or of the
  stand-in for the other end's own class, with the same text.
* None that arrives ends a loop of the tests, their process or a test: not StopIteration, not
  KeyboardInterrupt, not unittest.SkipTest. (SystemExit fails a test like any other exception.)
* One that arrives holds values only, and can be printed.
"""

import functools
import sys
import traceback

import library_values
from value_codec import ValueRefused, encode_value

TAG = "error"
_MAX_TEXT = 10_000
# pytest, unittest and debuggers treat exceptions of these modules as commands.
_REFUSED_MODULES = ("unittest", "bdb", "doctest", "test")
_LOOP_ENDS = (StopIteration, StopAsyncIteration)


def export_error(item):
    """Return ``(tag, content, members)`` of an exception or a standard class of exceptions."""
    if isinstance(item, type) and issubclass(item, BaseException) and _is_standard(item):
        return TAG, _get_name(item), []
    if not isinstance(item, Exception | SystemExit):
        return None
    arguments = item.args if _is_value(item.args) else ()
    if isinstance(item, OSError) and item.filename is not None and len(item.args) == 2:
        arguments = (*item.args, item.filename)  # which is not kept among the arguments
    attributes = {name: value for name, value in vars(item).items() if _is_value(value)}
    return TAG, None, [type(item), _get_text(item), arguments, attributes]


def _is_value(item):
    try:
        encode_value(item, library_values.export_value)
    except ValueRefused:
        return False
    return True


def build_error(name, members):
    """Return the exception, or the standard class with this name, that was exported.

    Raises:
        ValueRefused: it is malformed.
    """
    if type(name) is str:
        return _find_standard(name)
    error = _make_error(*members)
    try:
        traceback.format_exception_only(error)
    except Exception:  # a SyntaxError whose line is no text, for example
        error = Exception(_get_text(error))
    return error


def _make_error(kind, text, arguments, attributes):
    if not (isinstance(kind, type) and issubclass(kind, Exception | SystemExit)):
        raise ValueRefused("an exception of no class of exceptions")
    if (type(text), type(arguments), type(attributes)) != (str, tuple, dict):
        raise ValueRefused("an exception without text, arguments and attributes")
    if not _is_value([arguments, attributes]):
        raise ValueRefused("an exception that holds more than values")
    if issubclass(kind, _LOOP_ENDS):
        return RuntimeError(text)
    if hasattr(kind, "_peer"):
        error = kind.__new__(kind, *arguments)
        vars(error).update(attributes, _text=text)
        return error
    # Some classes need more arguments than they keep, which only their constructor checks, and some
    # have their text from there (UnicodeDecodeError): a base does not.
    for base in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for given in (arguments, (text,)):
            for make in (base, functools.partial(base.__new__, base)):
                try:
                    error = make(*given)
                except Exception:  # whatever the class objects to: the next way, at last the text
                    continue
                if _get_text(error) == text:
                    vars(error).update(attributes)
                    return error
    return Exception(text)


def make_error_class(peer, number, name, bases):
    """Return the stand-in for a class of exceptions; ``bases`` are classes of exceptions too."""
    if not all(isinstance(base, type) and issubclass(base, BaseException) for base in bases):
        raise ValueRefused("a class of exceptions with other bases")
    members = {"_peer": peer, "_number": number, "__qualname__": name}
    members["__str__"] = lambda error: vars(error).get("_text") or super(made, error).__str__()
    bases = tuple(bases) or (Exception,)
    made = type(name, bases, members)
    return made


def _is_standard(kind):
    return _find_standard(_get_name(kind)) is kind


def _get_name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


def _find_standard(name):
    """Return the class of exceptions with this name, or Exception."""
    module, _dot, name = name.rpartition(".")
    package = module.partition(".")[0]
    found = None
    if package in sys.stdlib_module_names and package not in _REFUSED_MODULES:
        found = vars(sys.modules.get(module, sys)).get(name)
    is_error = isinstance(found, type) and issubclass(found, Exception | SystemExit)
    return found if is_error else Exception


def _get_text(error):
    try:
        return str(error)[:_MAX_TEXT]
    except Exception:  # a program's own __str__ failed: its error is still the one to report
        return ""
