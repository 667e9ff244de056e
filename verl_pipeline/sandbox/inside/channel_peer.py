"""One end of the channel between a program and its tests; both ends are alike.

Messages are lists of values. A request is ``["request", kind, ...]``:

* ``call`` owner, name, arguments, keywords: a function by its name (owner None), a method, or the
  owner itself (name None): a function, a class or an object that can be called;
* ``get``, ``set``, ``delete`` owner, name, value; ``operate`` owner, special method, operands;
* ``next`` iterator; ``wait`` coroutine; ``find`` name and ``names`` of the program's module;
* ``describe`` class.

An answer is ``["value", ...]``, ``["callable"]`` (to ``get``, for methods), ``["raised", error]``
or ``["refused", text]``. Until its answer arrives, an end answers the requests of the other.

Invariants:
* An object that cannot be copied stays in its process; the other end holds a number and a stand-in.
* Requests use only the special methods of :data:`.remote_objects.OPERATIONS`.
"""

import asyncio
import inspect
import threading

import library_values
import messages
import record_table
import remote_errors
import remote_objects
import value_codec
from value_codec import ValueRefused

# The tag of a function of a built-in module, which each end has.
NAMED = "named"
# Tags of parts that :mod:`.value_codec` leaves to its caller: objects of the sender and of the
# receiver, and objects that can neither be copied nor used.
_OWN, _YOURS, _OPAQUE = "own", "yours", "opaque"


class Peer:
    """One end of the channel.

    Args:
        channel: a socket.
        records: a :class:`.record_table.RecordTable`.
        own_modules: names of modules whose classes and functions are those of this end.
        max_bytes: of a message that arrives.

    Attributes:
        is_wary: whether the other end may not be believed; see :mod:`.remote_objects`.
        answered: number of answers that have arrived.
    """

    is_wary = False
    answered = 0

    def __init__(self, channel, records, own_modules, max_bytes):
        self._channel, self._records, self.own_modules = channel, records, own_modules
        self._max_bytes = max_bytes
        # Our objects that the other end knows, their kind and number by id, and the stand-ins for
        # its objects by number.
        self._own_objects, self._sent, self._stand_ins = [], {}, {}
        self._lock = threading.RLock()

    def find_kind(self, item):
        """Return what an item that is not copied is sent as, or None if it is a value after all.

        ``class``, ``object``, ``function``, ``iterator``, ``coroutine`` or ``opaque``.

        Raises:
            ValueRefused: it may not be sent.
        """
        raise NotImplementedError

    def check_owner(self, owner, *kinds):
        """Raise ValueRefused unless the other end may use this object, as one of these kinds."""

    def check_name(self, name):
        """Raise ValueRefused if the other end may not use this attribute of an object."""

    def check_change(self, owner, name):
        """Raise ValueRefused if the other end may not set or delete this attribute."""
        self.check_name(name)

    def refuse_own(self, reason):
        """Raise ValueRefused: this end wants to use what cannot cross."""
        raise ValueRefused(reason)

    def allow_stand_in(self, kind, number):
        """Raise ValueRefused unless a stand-in for a new object may be made."""

    def answer_request(self, kind, *content):
        """Return the answer to a request of the other end, as a message."""
        answers = {
            "call": self._call,
            "get": self._get,
            "set": self._set,
            "delete": self._delete,
            "operate": self._operate,
            "next": self._get_next,
            "wait": self._wait_for,
            "describe": self._describe_class,
        }
        return answers[kind](*content)

    # Requests

    def send_request(self, kind, *content):
        """Return the content of the answer, or raise what was raised at the other end."""
        with self._lock:
            self.send_text(self.encode_request(kind, content))
            while (message := self.receive_message())[0] == "request":
                self.send_answer(message[1:])
        self.answered += 1
        answer, *content = message
        if answer == "raised" and isinstance(content[0], BaseException):
            raise content[0]
        if answer not in ("value", "callable"):
            raise ValueRefused(f"an answer {answer!r}: {content}")
        return content

    def send_answer(self, request):
        """Send the answer to a request, whatever happens."""
        try:
            try:
                text = self.encode(self.answer_request(*request))
            except ValueRefused as error:
                text = self.encode(["refused", str(error)])
        except (Exception, SystemExit) as error:
            text = self.encode(["raised", error])
        with self._lock:
            self.send_text(text)

    def call_remote(self, owner, name, arguments, keywords):
        """Return what a function of the other end returns; see ``call``.

        Mutable arguments are changed as the function has changed its copies.
        """
        content = self.send_request("call", owner, name, list(arguments), keywords)
        returned, changed_arguments, changed_keywords = content
        library_values.copy_changes(list(arguments), changed_arguments)
        library_values.copy_changes(dict(keywords), changed_keywords)
        return returned

    def encode_request(self, kind, content):
        return self.encode(["request", kind, *content])

    def send_text(self, text):
        """Send an encoded message."""
        messages.send_message(self._channel, text)

    def receive_text(self):
        """Return the next encoded message, or None if the other end has closed the channel."""
        return messages.receive_message(self._channel, self._max_bytes)

    def receive_message(self):
        """Return the next message.

        Raises:
            EOFError: the other end has closed the channel.
            ValueRefused: the message is malformed.
        """
        text = self.receive_text()
        if text is None:
            raise EOFError
        message = value_codec.decode_value(text, self.build_item, self._max_bytes)
        if type(message) is not list or not message or type(message[0]) is not str:
            raise ValueRefused("no message")
        return message

    # Answers

    def _call(self, owner, name, arguments, keywords):
        self.check_owner(owner)
        function = owner if name is None else self._get_attribute(owner, name)
        return ["value", function(*arguments, **keywords), arguments, keywords]

    def _get_attribute(self, owner, name):
        self.check_name(name)
        return getattr(owner, name)

    def _get(self, owner, name):
        self.check_owner(owner, "object", "class", "function")
        found = self._get_attribute(owner, name)
        return ["callable"] if inspect.isroutine(found) else ["value", found]

    def _set(self, owner, name, value):
        self.check_owner(owner, "object", "class")
        self.check_change(owner, name)
        setattr(owner, name, value)
        return ["value"]

    def _delete(self, owner, name):
        self.check_owner(owner, "object", "class")
        self.check_change(owner, name)
        delattr(owner, name)
        return ["value"]

    def _operate(self, owner, name, operands):
        self.check_owner(owner, "object", "class")
        if name == "__next__":
            return self._get_next(owner)
        return ["value", remote_objects.OPERATIONS[name](owner, *operands)]

    def _get_next(self, iterator):
        self.check_owner(iterator, "object", "iterator")
        end = object()
        item = next(iterator, end)
        return ["value"] if item is end else ["value", item]

    def _wait_for(self, coroutine):
        self.check_owner(coroutine, "coroutine")

        async def wait():
            return await coroutine

        return ["value", asyncio.run(wait())]

    def _describe_class(self, kind):
        self.check_owner(kind, "class")
        if issubclass(kind, BaseException):
            bases = [base for base in kind.__bases__ if issubclass(base, BaseException)]
            return ["value", kind.__name__, bases, None, None]
        bases = [base for base in kind.__bases__ if base.__module__ in self.own_modules]
        operations = map(remote_objects.list_operations, (kind, type(kind)))
        return ["value", kind.__name__, bases, *operations]

    # Objects that are not copied

    def encode(self, value):
        self._records.begin_message()
        return value_codec.encode_value(value, self.export_item)

    def export_item(self, item):
        """See :func:`.value_codec.encode_value`."""
        if remote_objects.is_stand_in(item) or isinstance(item, type) and hasattr(item, "_peer"):
            return _YOURS, *remote_objects.get_reference(item)
        exported = (
            self._records.export_record(item)
            or library_values.export_value(item)
            or remote_errors.export_error(item)
        )
        kind = None if exported else self.find_kind(item)
        if kind is None:
            return exported
        if kind == "opaque":
            return _OPAQUE, None, []
        if id(item) not in self._sent:
            self._sent[id(item)] = kind, len(self._own_objects)
            self._own_objects.append(item)  # keeps it alive, so that its id stays unique
        return _OWN, self._sent[id(item)], [type(item)] if kind == "object" else []

    def build_item(self, tag, content, members):
        """See :func:`.value_codec.decode_value`."""
        if tag == library_values.TAG:
            return library_values.build_value(content, members)
        if tag == library_values.TYPE_TAG:
            return library_values.find_type(content)
        if tag == record_table.TAG:
            return self._records.build_record(content, members)
        if tag == remote_errors.TAG:
            return remote_errors.build_error(content, members)
        if tag == _OPAQUE:
            return library_values.OpaqueValue()
        if tag == _YOURS:
            return self._find_object(content, members)
        if tag != _OWN:
            raise ValueRefused(f"a tag {tag!r}")
        kind, number = content
        if type(number) is not int:
            raise ValueRefused("an object without number")
        if number not in self._stand_ins:
            self.allow_stand_in(kind, number)
            self._stand_ins[number] = self._make_stand_in(kind, number, members)
        return self._stand_ins[number]

    def _find_object(self, number, members):
        """Return the object with that number; a method, if ``number`` is the name of one."""
        if type(number) is int and number >= 0:
            return self._own_objects[number]
        (owner,) = members
        self.check_owner(owner, "object", "class")
        return self._get_attribute(owner, number)

    def _make_stand_in(self, kind, number, members):
        if kind == "object" and isinstance(members[0], remote_objects.RemoteClass):
            return remote_objects.make_object(members[0], number)
        if kind == "class":
            # An iterator stands for the class until its own stand-in is made.
            unknown = remote_objects.RemoteIterator(self, number)
            name, bases, *operations = self.send_request("describe", unknown)
            if operations == [None, None]:
                return remote_errors.make_error_class(self, number, name, bases)
            return remote_objects.make_class(self, number, name, bases, *operations)
        if kind == "function":
            return remote_objects.RemoteFunction(self, number)
        if kind == "iterator":
            return remote_objects.RemoteIterator(self, number)
        if kind == "coroutine":
            return remote_objects.wait_for_remote(self, number)
        raise ValueRefused(f"an object of kind {kind!r}")
