"""The server engine against a misbehaving server.

tests/e2e/test_evaluation.py tests it against a real server.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from verl_pipeline.evaluation.engines import EngineError, FailedRequest, Generation, SampleRequest
from verl_pipeline.evaluation.engines.server_engine import ServerEngine
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation

release_requests = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Misbehaves as the last message says."""

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
        behaviour = request["messages"][-1]["content"]
        if behaviour == "refuse":
            self._send(500, {"error": {"message": "planted"}})
        elif behaviour == "html":
            self._send(200, "<html>")
        elif behaviour == "nothing":
            self._send(200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m"})
        else:
            if behaviour == "wait":
                release_requests.wait(60)
            message = {
                "role": "assistant",
                "content": "text",
                "reasoning": "hm" if behaviour == "think" else None,
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
        with contextlib.suppress(BrokenPipeError):  # the client has disconnected
            self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    release_requests.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    release_requests.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(url):
    server_engine = ServerEngine("m", EngineConfig(kind="server", url=url, tries=1))
    yield server_engine
    server_engine.close()


def make_request(behaviour: str) -> SampleRequest:
    return SampleRequest("t", behaviour, 0, 1, make_conversation(behaviour))


def test_server_failures_are_failed_requests_and_the_engine_continues(engine):
    behaviours = ["fine", "refuse", "html", "nothing", "think"]
    for _round in range(2):  # a second task, or a repetition of failed requests
        answers = {
            r.id: answer
            for r, answer in engine.generate(map(make_request, behaviours), SamplingParameters())
        }
        assert answers["fine"] == Generation("text", 3, 4, "stop")
        assert answers["think"].response == "<think>hm</think>text"
        for name in ("refuse", "html", "nothing"):
            assert isinstance(answers[name], FailedRequest), name
        assert "planted" in answers["refuse"].reason


def test_requests_in_flight_are_cancelled(engine):
    answers = engine.generate([make_request("fine"), make_request("wait")], SamplingParameters())
    assert next(answers)[0].id == "fine"
    answers.close()  # must not wait for the server, which waits for the end of this test
    assert not release_requests.is_set()


def test_an_unknown_model_and_an_unreachable_server(url):
    with pytest.raises(EngineError, match="serves m"):
        ServerEngine("other", EngineConfig(kind="server", url=url))
    with pytest.raises(EngineError, match="check that the server is up"):
        ServerEngine("m", EngineConfig(kind="server", url="http://127.0.0.1:9/v1", tries=1))
