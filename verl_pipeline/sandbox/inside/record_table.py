"""Records: objects of the classes of the prelude, such as nodes of lists and trees.

A record exists in both processes; its attributes travel with every message that contains it.

Invariants:
* Both copies of a record have one number, so that identity, back references and cycles survive.
* A record that arrives again is the same object with changed attributes.
* No method of a record is called, not even its constructor, and none is shadowed by an attribute.
"""

import inspect
import types

TAG = "rec"


class RecordTable:
    """The records that this process has sent or received, by number.

    Args:
        classes: the classes of the prelude by name.
        first_number: 0 for the tests' process and 1 for the program's, so that they never give one
            number to two records.
    """

    def __init__(self, classes, first_number):
        self.classes = classes
        self._next_number = first_number
        self._first_number = first_number
        self._records, self._numbers = {}, {}
        self._sent = set()

    def begin_message(self):
        """Forget which attributes have been sent: each message has those of all its records."""
        self._sent.clear()

    def export_record(self, item):
        """Return ``(tag, content, members)``, or None if ``item`` is no record."""
        kind = type(item)
        if self.classes.get(kind.__name__) is not kind:
            return None
        if id(item) not in self._numbers:
            self._add(self._next_number, item)
            self._next_number += 2
        number = self._numbers[id(item)]
        if number in self._sent:
            return TAG, [kind.__name__, number, None], []
        self._sent.add(number)
        attributes = _get_attributes(item)
        return TAG, [kind.__name__, number, list(attributes)], list(attributes.values())

    def build_record(self, content, members):
        """Return the record of an exported form."""
        name, number, names = content
        record = self._records.get(number)
        if record is None:
            if type(number) is not int or number % 2 == self._first_number:
                raise ValueError(f"no record has the number {number!r}")
            record = object.__new__(self.classes[name])
            self._add(number, record)
        if names is not None:
            _set_attributes(record, dict(zip(names, members, strict=True)))
        return record

    def _add(self, number, record):
        # Keeps it alive, so that its id stays unique.
        self._records[number] = record
        self._numbers[id(record)] = number


def find_member(kind, name):
    """Return what the class ``kind`` or a base of it has as ``name``, as it is there, or None."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def is_method(kind, name):
    """Whether objects of the class ``kind`` have a method of this name."""
    found = find_member(kind, name)
    return inspect.isroutine(found) or isinstance(found, classmethod | staticmethod)


def _find_slots(kind):
    return {
        name: descriptor
        for base in kind.__mro__
        for name, descriptor in vars(base).items()
        if type(descriptor) is types.MemberDescriptorType
    }


def _get_attributes(item):
    attributes = dict(getattr(item, "__dict__", {}))
    for name, descriptor in _find_slots(type(item)).items():
        try:
            attributes[name] = descriptor.__get__(item)
        except AttributeError:
            continue
    return attributes


def _set_attributes(record, attributes):
    kind = type(record)
    if any(is_method(kind, name) for name in attributes):
        raise ValueError("a record with an attribute in place of a method")
    slots = _find_slots(kind)
    for name, descriptor in slots.items():
        if name in attributes:
            descriptor.__set__(record, attributes.pop(name))
    if hasattr(record, "__dict__"):
        vars(record).clear()
        vars(record).update(attributes)
    elif attributes:
        raise ValueError(f"a record without place for {', '.join(map(str, attributes))}")
