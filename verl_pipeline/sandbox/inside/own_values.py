"""How objects of the tests cross to the program: which kinds, and which by name.

Invariant: what is neither a value, nor of the tests' own modules, nor a function of the standard
library does not cross.
"""

import functools
import inspect
import sys
import types
from collections.abc import Iterator

import library_values
import value_codec

# Objects whose built-in methods (``found.append``) the program may call.
_CONTAINERS = (list, dict, set, str, bytes, tuple)
# Modules whose classes stand for what the program has sent.
_STAND_IN_MODULES = ("library_values", "remote_objects", "remote_errors")


def comes_from_program(item):
    """Whether only an answer of the program can have led to ``item``, which cannot cross."""
    if isinstance(item, type):
        return item.__module__ in _STAND_IN_MODULES
    if isinstance(item, memoryview):  # ``answer.data``, where the answer is an array
        return type(item.obj).__module__ == "numpy"
    return isinstance(item, library_values.OpaqueValue)


def find_kind(item, own_modules):
    """See :meth:`.channel_peer.Peer.find_kind`; ``own_modules`` are names of the tests' modules."""
    kind = type(item)
    if isinstance(item, value_codec.BASE_TYPES) or kind.__module__ == "numpy":
        return None
    if isinstance(item, type) and item.__module__ in own_modules:
        return "class"
    if kind.__module__ in own_modules:
        return "object"
    if _is_own_function(item, own_modules):
        return "function"
    if isinstance(item, Iterator):
        return "iterator"
    if inspect.iscoroutine(item):
        return "coroutine"
    raise value_codec.ValueRefused(f"a value of type {kind.__module__}.{kind.__qualname__}")


def _is_own_function(item, own_modules):
    if isinstance(item, functools.partial):
        return _is_own_function(item.func, own_modules)
    if isinstance(item, types.BuiltinMethodType):
        return type(item.__self__) in _CONTAINERS
    is_mock = type(item).__module__ == "unittest.mock"
    return callable(item) and (is_mock or getattr(item, "__module__", None) in own_modules)


def find_built_in(item):
    """Return ``module:name`` of a function of the standard library, or of a built-in method."""
    if isinstance(item, types.MethodDescriptorType | types.WrapperDescriptorType):
        owner = item.__objclass__
        return f"{owner.__module__}:{item.__qualname__}" if _is_standard(owner, owner) else None
    is_named = isinstance(item, types.FunctionType | types.BuiltinFunctionType | type)
    if is_named and _is_standard(item, getattr(item, "__self__", None)):
        return f"{item.__module__}:{item.__qualname__}"
    return None


def _is_standard(item, owner):
    module = item.__module__ or ""
    return module.partition(".")[0] in sys.stdlib_module_names and (
        owner is None or isinstance(owner, type | types.ModuleType)
    )
