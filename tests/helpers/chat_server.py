"""A small OpenAI-compatible server on a thread, whose behaviour a test chooses.

Invariant: every request is kept, in order, so that a test can say what was sent.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
# Status, body (as JSON, or as it is) and further headers.
Reply = tuple[int, Any, dict[str, str]]


def complete(content: Any = "2", **changes: Any) -> Reply:
    """A chat completion; ``changes`` replace fields of the choice or of the answer."""
    answer: Body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    logprobs = {"content": [{"token": "2", "logprob": -0.5}, {"token": "", "logprob": -1.5}]}
    message = {"role": "assistant", "content": content, **changes.pop("message", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    for name in ("finish_reason", "logprobs"):
        if name in changes:
            choice[name] = changes.pop(name)
    return 200, {**answer, "choices": [choice], **changes}, {}


def refuse(message: str, status: int = 400, **fields: Any) -> Reply:
    """An error in OpenAI's form."""
    return status, {"error": {"message": message, "type": "invalid_request_error", **fields}}, {}


@dataclass
class ChatServer:
    """A running server.

    Attributes:
        url: URL including ``/v1``.
        reply: makes the reply to the body of a chat completion.
        models: reply to ``GET /v1/models``.
        bodies: bodies of the chat completions, in the order of their arrival.
    """

    url: str = ""
    reply: Callable[[Body], Reply] = field(default=lambda _body: complete())
    models: Reply = (200, {"object": "list", "data": [{"id": "m", "object": "model"}]}, {})
    bodies: list[Body] = field(default_factory=list)

    def reset(self) -> None:
        """Behave as a new server does."""
        fresh = ChatServer(self.url)
        self.__dict__.update(fresh.__dict__)

    @property
    def last(self) -> Body:
        return self.bodies[-1]


@contextlib.contextmanager
def serve_chat() -> Iterator[ChatServer]:
    """Run a server until the block ends."""
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(state.models)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            self._send(state.reply(body))

        def _send(self, reply: Reply):
            status, content, headers = reply
            data = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data.encode())))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # the client has disconnected
                self.wfile.write(data.encode())

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
