"""The program's end of the channel: answers the tests' requests in the program's own process.

Invariants:
* Nothing here can be trusted once the program has started. The tests' end checks every message.
* Objects of the program's own classes stay here, and so do its functions, iterators and coroutines;
  copies of plain values, of the standard library's and of records cross.
* What the program writes to its standard streams reaches the tests before the answer, so that they
  see it where they look for it; what it reads comes from the tests.
"""

import importlib
import inspect
import io
import os
import socket
import sys
from collections.abc import Iterator

import channel_peer
import program_runner
import record_table
import value_codec

# Standard output and error.
_OUTPUTS = (1, 2)


class RemoteInput(io.TextIOBase):
    """Standard input: lines of the tests' own standard input."""

    def __init__(self, peer):
        self._peer = peer

    def readable(self):
        return True

    def readline(self, size=-1):
        return self._peer.send_request("read_line", size)[0]

    def read(self, size=-1):
        return "".join(iter(self.readline, "")) if size is None or size < 0 else self.readline(size)


class CallServer(channel_peer.Peer):
    """Answers requests.

    Args:
        channel: a socket.
        program: a :class:`.program_runner.LoadedProgram`.
        request: of the run: ``records``, names of classes whose objects are records; ``objects``,
            whether any object may be sent by number, otherwise only those of the program's own
            classes, and all others are opaque; ``max_bytes`` of a message.
    """

    def __init__(self, channel, program, request):
        attributes = {name: getattr(program.module, name, None) for name in request["records"]}
        classes = {name: value for name, value in attributes.items() if isinstance(value, type)}
        records = record_table.RecordTable(classes, first_number=1)
        own_modules = (program.module.__name__, "__main__")
        super().__init__(channel, records, own_modules, request["max_bytes"])
        self._program, self._are_objects_sent = program, request["objects"]
        # Objects that a call of a class returned: the tests have made them.
        self._instances = []
        self._written = [os.fstat(output).st_size for output in _OUTPUTS]

    def serve_requests(self):
        """Answer requests until the channel is closed."""
        sys.stdin = RemoteInput(self)
        while True:
            with self._lock:
                try:
                    message = self.receive_message()
                except EOFError:
                    return
            self.send_answer(message[1:])

    def answer_request(self, kind, *content):
        if kind == "find":
            found = self._program.find_attribute(*content)
            # A function is called by its name, so that each call of a method of Solution has an
            # object of its own.
            return ["callable"] if inspect.isroutine(found) else ["value", found]
        if kind == "names":
            return ["value", self._program.list_names()]
        if kind == "call" and content[0] is None:
            _owner, name, arguments, keywords = content
            function = self._program.find_attribute(name)
            return ["value", function(*arguments, **keywords), arguments, keywords]
        answer = super().answer_request(kind, *content)
        if kind == "call" and isinstance(content[0], type) and content[1] is None:
            self._instances.append(answer[1])
        return answer

    def send_text(self, text):
        for index, output in enumerate(_OUTPUTS):
            (sys.stdout, sys.stderr)[index].flush()
            start, end = self._written[index], os.fstat(output).st_size
            if end > start:
                self._written[index] = end
                written = os.pread(output, end - start, start).decode(errors="replace")
                super().send_text(self.encode(["output", output, written]))
        super().send_text(text)

    def find_kind(self, item):
        kind = type(item)
        if isinstance(item, type):
            return "class"
        if kind.__module__ in self.own_modules and not (
            isinstance(item, value_codec.BASE_TYPES)
            and not any(item is instance for instance in self._instances)
        ):
            return "object"
        if isinstance(item, value_codec.BASE_TYPES) or kind.__module__ == "numpy":
            return None
        if isinstance(item, Iterator):
            return "iterator"
        if inspect.iscoroutine(item):
            return "coroutine"
        if callable(item):
            return "function"
        return "object" if self._are_objects_sent else "opaque"

    def _find_object(self, number, members):
        if type(number) is str and members == [None]:
            return self._program.find_attribute(number)
        return super()._find_object(number, members)

    def build_item(self, tag, content, members):
        if tag == channel_peer.NAMED:
            module, _colon, name = content.partition(":")
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        return super().build_item(tag, content, members)


def serve_calls(prelude, source, channel, request):
    """Answer the requests that arrive on ``channel`` (a socket's descriptor) until it is closed.

    Returns the exit code.
    """

    def serve(program):
        with socket.socket(fileno=channel) as requests:
            CallServer(requests, program, request).serve_requests()

    return program_runner.use_program(prelude, source, serve)
