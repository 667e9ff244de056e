"""The engine for servers, against one that misbehaves; against a real one:
tests/integration/test_evaluation.py.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import EngineError, Failed, Generation, Request
from verl_pipeline.evaluation.engines.server import ServerEngine
from verl_pipeline.evaluation.task import Sampling, asked

released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Does what the last message says."""

    def do_GET(self):
        self._send(
            200,
            {
                "object": "list",
                "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}],
            },
        )

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = request["messages"][-1]["content"]
        if what == "refuse":
            self._send(500, {"error": {"message": "planted"}})
        elif what == "html":
            self._send(200, "<html>")
        elif what == "nothing":
            self._send(200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m"})
        else:
            if what == "wait":
                released.wait(60)
            message = {
                "role": "assistant",
                "content": "text",
                "reasoning": "hm" if what == "think" else None,
            }
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
            self._send(200, {**answer, "usage": usage})

    def _send(self, code, content):
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(code)
        self.send_header(
            "Content-Type", "text/html" if isinstance(content, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked has gone
            self.wfile.write(body)

    def log_message(self, *_words):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    released.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(url):
    found = ServerEngine("m", EngineConfig(kind="server", url=url, tries=1))
    yield found
    found.close()


def request(what: str) -> Request:
    return Request("t", what, 0, 1, asked(what))


def test_failures_of_the_server_are_failures_and_the_engine_goes_on(engine):
    words = ["fine", "refuse", "html", "nothing", "think"]
    for _round in range(2):  # a second task, or the second asking of what failed
        answers = {r.id: answer for r, answer in engine.generate(map(request, words), Sampling())}
        assert answers["fine"] == Generation("text", 3, 4, "stop")
        assert answers["think"].response == "<think>hm</think>text"
        for name in ("refuse", "html", "nothing"):
            assert isinstance(answers[name], Failed), name
        assert "planted" in answers["refuse"].reason


def test_what_is_under_way_is_cancelled_not_waited_for(engine):
    answers = engine.generate([request("fine"), request("wait")], Sampling())
    assert next(answers)[0].id == "fine"
    answers.close()  # would wait for the server otherwise, which waits for the end of this test
    assert not released.is_set()


def test_a_model_it_does_not_have_and_no_server(url):
    with pytest.raises(EngineError, match="serves m"):
        ServerEngine("other", EngineConfig(kind="server", url=url))
    with pytest.raises(EngineError, match="is the server up"):
        ServerEngine("m", EngineConfig(kind="server", url="http://127.0.0.1:9/v1", tries=1))
