"""What the client waits for, what it tries again, and what it can do without."""

import datetime
import email.utils
import time

import pytest

from tests.helpers.chat_server import complete, refuse, serve_chat
from tests.helpers.thinned import thin_out
from verl_pipeline.evaluation.engines import EngineError, FailedRequest, Generation, SampleRequest
from verl_pipeline.evaluation.engines.server_client import read_retry_after
from verl_pipeline.evaluation.engines.server_engine import ServerEngine
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation

REQUESTS = [SampleRequest("t", str(n), 0, n, make_conversation(str(n))) for n in range(6)]


@pytest.fixture
def server():
    with serve_chat() as state:
        yield state


@pytest.fixture
def sample_all(server):
    """Samples the requests; returns the answers by id."""
    engines = []

    def sample(requests=REQUESTS, **settings):
        engine = ServerEngine("m", EngineConfig(kind="server", url=server.url, **settings))
        engines.append(engine)
        return {r.id: answer for r, answer in engine.generate(requests, SamplingParameters())}

    yield sample
    for engine in engines:
        engine.close()


def limit(status=429, **headers):
    answer = refuse("Rate limit reached", status)
    return (*answer[:2], {name.replace("_", "-"): value for name, value in headers.items()})


def refuse_first(server, count, *replies):
    """The first `count` requests get the replies in turn, the others a completion."""

    def reply(_body):
        number = len(server.bodies) - 1
        return replies[number % len(replies)] if number < count else complete()

    server.reply = reply


@pytest.mark.parametrize(
    "reply",
    thin_out(
        [
            limit(Retry_After="0.1"),
            limit(retry_after_ms="100"),
            limit(503, Retry_After="0.1"),
            limit(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
            limit(Retry_After="soon"),
            limit(),
        ],
        keep=2,
    ),
    ids=str,
)
def test_waiting_for_a_limit_is_no_try(server, sample_all, reply):
    refuse_first(server, 5, reply)
    answers = sample_all(tries=1, concurrency=2)
    assert all(isinstance(answer, Generation) for answer in answers.values())
    assert len(server.bodies) == 5 + len(REQUESTS)


def test_a_limit_pauses_all_requests(server, sample_all):
    """The first request meets a limit of a second; the second one is answered meanwhile."""
    limits: list[float] = []
    too_early: list[str] = []

    def reply(body):
        content = body["messages"][0]["content"]
        if content == "1":
            time.sleep(0.2)
        elif not limits:
            limits.append(time.monotonic() + 1)
            return limit(Retry_After="1")
        elif time.monotonic() < limits[0]:
            too_early.append(content)
        return complete()

    server.reply = reply
    assert len(sample_all(concurrency=2)) == len(REQUESTS)
    assert len(server.bodies) == 1 + len(REQUESTS) and too_early == []


@pytest.mark.parametrize(
    "reply", [limit(Retry_After="86400"), limit(503, Retry_After="86400")], ids=str
)
def test_a_limit_that_lasts_too_long_is_a_failure_at_once(server, sample_all, reply):
    server.reply = lambda _body: reply
    [answer] = sample_all(REQUESTS[:1], tries=3, timeout_s=30).values()
    assert isinstance(answer, FailedRequest) and "86400 s more" in answer.reason
    assert "engine.timeout_s=30" in answer.reason and len(server.bodies) == 1


def test_a_used_up_quota_is_not_waited_for(server, sample_all):
    server.reply = lambda _body: refuse("You exceeded your quota", 429, code="insufficient_quota")
    [answer] = sample_all(REQUESTS[:1]).values()
    assert "You exceeded your quota" in answer.reason and len(server.bodies) == 1


@pytest.mark.parametrize(
    "reply",
    thin_out([refuse("broken", 500), refuse("away", 503), (200, "<x>", {})], keep=1),
)
def test_other_failures_are_tried_again(server, sample_all, reply):
    refuse_first(server, 2, reply)
    [answer] = sample_all(REQUESTS[:1], tries=3).values()
    assert isinstance(answer, Generation) and len(server.bodies) == 3
    server.bodies.clear()
    [answer] = sample_all(REQUESTS[:1], tries=2).values()
    assert isinstance(answer, FailedRequest) and len(server.bodies) == 2


def test_a_refusal_is_not_tried_again(server, sample_all):
    server.reply = lambda _body: refuse("too long a prompt")
    [answer] = sample_all(REQUESTS[:1], tries=3).values()
    assert answer == FailedRequest("HTTP 400: too long a prompt") and len(server.bodies) == 1


def test_a_date_is_read_as_the_seconds_until_then():
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    for text in (
        email.utils.format_datetime(moment, usegmt=True),
        email.utils.formatdate(moment.timestamp()),
    ):
        assert 3500 < read_retry_after({"retry-after": text}) <= 3600
    assert read_retry_after({"retry-after": "7"}) == 7
    assert read_retry_after({"retry-after-ms": "1500", "retry-after": "2"}) == 1.5
    for text in ("", "soon", "-1x", "99999 Feb"):
        assert read_retry_after({"retry-after": text}) is None
    assert read_retry_after({}) is None


@pytest.mark.parametrize(
    "models", [(404, "no", {}), (200, {"data": []}, {}), (200, "<html>", {}), limit()], ids=str
)
def test_a_list_of_models_is_not_needed(server, sample_all, models):
    server.models = models
    assert all(isinstance(answer, Generation) for answer in sample_all().values())


@pytest.mark.parametrize("models", [refuse("no key", 401), refuse("starting", 503)], ids=str)
def test_a_server_that_is_not_there_stops_at_once(server, sample_all, models):
    server.models = models
    with pytest.raises(EngineError, match="check that the server is up"):
        sample_all(tries=1)
    assert server.bodies == []
