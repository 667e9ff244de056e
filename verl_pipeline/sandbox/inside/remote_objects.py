"""Stand-ins for objects, classes, functions and iterators of the process at the other end.

Invariants:
* One object has one stand-in, so that ``is`` means what it means there.
* The class of a stand-in has the special methods of the object's own class, no others: operators,
  ``len``, ``with`` and the like are carried out at the other end, or fail as there.
* Where the other end is the program, none of its objects can pass for a value: otherwise one that
  says it is equal to 5, or less than any number, would be accepted. It is compared with other such
  objects only. Arithmetic with a value of the tests gives an object, which becomes no number.
* As a context (``with``), no object of the program hides that a check of the tests has failed.
"""

import copy
import functools
import operator
import types


def _call_special(name):
    return lambda owner, *operands: getattr(type(owner), name)(owner, *operands)


_COMPARISONS = {f"__{name}__": getattr(operator, name) for name in "eq ne lt le gt ge".split()}
_ARITHMETIC = {
    f"__{name}__": getattr(operator, f"__{name}__")
    for name in "add sub mul truediv floordiv mod pow matmul lshift rshift and or xor".split()
}
_DIVMOD = {"__divmod__": divmod}
_REFLECTED = {
    f"__r{name.strip('_')}__": functools.partial(lambda apply, owner, other: apply(other, owner), f)
    for name, f in (_ARITHMETIC | _DIVMOD).items()
}
_IN_PLACE = {
    f"__i{name.strip('_')}__": getattr(operator, f"__i{name.strip('_')}__") for name in _ARITHMETIC
}
_MIXING = _ARITHMETIC | _DIVMOD | _REFLECTED | _IN_PLACE
_NUMERIC = {
    "__abs__": abs,
    "__bool__": bool,
    "__complex__": complex,
    "__float__": float,
    "__index__": operator.index,
    "__int__": int,
    "__invert__": operator.invert,
    "__neg__": operator.neg,
    "__pos__": operator.pos,
    "__round__": round,
}
_TEXTS = {
    "__bytes__": bytes,
    "__format__": format,
    "__hash__": hash,
    "__repr__": repr,
    "__str__": str,
}
_CONTAINERS = {
    "__contains__": operator.contains,
    "__delitem__": operator.delitem,
    "__getitem__": operator.getitem,
    "__iter__": iter,
    "__len__": len,
    "__next__": next,
    "__reversed__": reversed,
    "__setitem__": operator.setitem,
}
_CONTEXTS = {name: _call_special(name) for name in ("__enter__", "__exit__", "__call__")}
_COPIES = {"__copy__": copy.copy, "__deepcopy__": copy.deepcopy}
# What each special method does to an object and its operands.
OPERATIONS = _COMPARISONS | _MIXING | _NUMERIC | _TEXTS | _CONTAINERS | _CONTEXTS | _COPIES


def list_operations(kind):
    """Return the special methods that objects of a class have, beyond those of every object."""
    return [
        name
        for name in OPERATIONS.keys() - _COPIES
        if hasattr(kind, name) and getattr(kind, name) is not getattr(object, name, None)
    ]


class RemoteClass(type):
    """The class of a stand-in's class: calling it makes an object at the other end."""

    def __call__(cls, *arguments, **keywords):
        return cls._peer.call_remote(cls, None, arguments, keywords)

    def __getattr__(cls, name):
        return _get_attribute(cls, name)

    def __setattr__(cls, name, value):
        cls._peer.send_request("set", cls, name, value)


class RemoteObject:
    """An object at the other end; its attributes are read and set there."""

    _is_mixed = False  # whether it comes from arithmetic with a value of this end
    _answered = 0  # answers that had arrived when this context was entered

    def __init_subclass__(cls, is_stand_in=False, **_keywords):
        if not is_stand_in:
            cls._peer.refuse_own(f"a subclass of {cls.__mro__[1].__name__}")

    def __getattr__(self, name):
        return _get_attribute(self, name)

    def __setattr__(self, name, value):
        self._peer.send_request("set", self, name, value)

    def __delattr__(self, name):
        self._peer.send_request("delete", self, name)

    def __copy__(self):
        return self._peer.send_request("operate", self, "__copy__", [])[0]

    def __deepcopy__(self, _memo):
        return self._peer.send_request("operate", self, "__deepcopy__", [])[0]

    @property
    def __dict__(self):
        return self._peer.send_request("get", self, "__dict__")[0]


class RemoteIterator:
    """An iterator at the other end; it yields values."""

    def __init__(self, peer, number):
        self._peer, self._number = peer, number

    def __iter__(self):
        return self

    def __next__(self):
        content = self._peer.send_request("next", self)
        if not content:
            raise StopIteration
        return content[0]


class RemoteFunction:
    """A function at the other end: a value, one that was found by its name, or a method.

    Args:
        number: of a value; None for others.
        name: of a function or method.
        owner: of a method.
    """

    def __init__(self, peer, number, name=None, owner=None):
        self._peer, self._number, self._name, self._owner = peer, number, name, owner

    def __call__(self, *arguments, **keywords):
        owner = self._owner if self._number is None else self
        return self._peer.call_remote(owner, self._name, arguments, keywords)

    def __getattr__(self, name):
        if name.startswith("__") and name not in ("__name__", "__qualname__", "__wrapped__"):
            raise AttributeError(name)
        return _get_content(self, name)

    @property
    def __doc__(self):
        return self._peer.send_request("get", self, "__doc__")[0]


async def wait_for_remote(peer, number):
    """Return the result of a coroutine at the other end, which runs to its end there."""
    return peer.send_request("wait", RemoteIterator(peer, number))[0]


def make_class(peer, number, name, bases, operations, class_operations):
    """Return the stand-in for a class whose objects, and which itself, have these operations."""
    if not all(isinstance(base, RemoteClass) for base in bases):
        raise TypeError("a class with bases that are no stand-ins")
    metaclass = type(
        "RemoteClass",
        tuple(dict.fromkeys(map(type, bases))) or (RemoteClass,),
        _make_methods(peer, set(class_operations) - {"__call__"}),
    )
    members = {"_peer": peer, "_number": number, "__qualname__": name}
    members |= _make_methods(peer, operations)
    return metaclass(name, tuple(bases) or (RemoteObject,), members, is_stand_in=True)


def make_object(stand_in_class, number):
    """Return a stand-in for an object of the other end."""
    made = object.__new__(stand_in_class)
    # Not by assignment, which would be sent to the other end.
    object.__setattr__(made, "_number", number)
    return made


def is_stand_in(item):
    """Whether ``item`` stands for something at the other end."""
    return issubclass(type(item), RemoteObject | RemoteIterator | RemoteFunction | RemoteClass)


def get_reference(stand_in):
    """Return how the other end finds the object: by its number, or by its name and owner."""
    if isinstance(stand_in, RemoteFunction) and stand_in._number is None:
        return stand_in._name, [stand_in._owner]
    return stand_in._number, []


def _get_attribute(owner, name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _get_content(owner, name)


def _get_content(owner, name):
    content = owner._peer.send_request("get", owner, name)
    return content[0] if content else RemoteFunction(owner._peer, None, name, owner)


def _make_methods(peer, names):
    return {name: _make_method(peer, name) for name in names if name in OPERATIONS}


def _is_mixed(item):
    return isinstance(item, RemoteObject) and item._is_mixed


def _make_method(peer, name):
    def operate(self, *operands, **keywords):
        if name == "__call__":
            return peer.call_remote(self, None, operands, keywords)
        if name == "__exit__" and operands[0] is not None and peer.is_wary:
            may_suppress = peer.may_suppress(*operands[1:], self._answered)
        else:
            may_suppress = True
        meets_value = bool(operands) and not is_stand_in(operands[0])
        if name in _COMPARISONS and meets_value and peer.is_wary:
            return NotImplemented
        # A traceback, which __exit__ gets, cannot cross.
        sent = [None if isinstance(item, types.TracebackType) else item for item in operands]
        content = peer.send_request("operate", self, name, sent)
        if name == "__next__" and not content:
            raise StopIteration
        (result,) = content
        if name == "__enter__":
            object.__setattr__(self, "_answered", peer.answered)
        if not may_suppress:
            return False
        if peer.is_wary and (
            name in _MIXING
            and (meets_value or _is_mixed(self) or _is_mixed(operands[0]))
            or name in _NUMERIC
            and _is_mixed(self)
        ):
            if not isinstance(result, RemoteObject):
                peer.refuse_answer(f"{name} makes a value of an object that was mixed with a value")
            object.__setattr__(result, "_is_mixed", True)
        return result

    operate.__name__ = name
    return operate
