"""The probe finds out what a server takes, whatever words it refuses with."""

import dataclasses
import itertools
import threading

import pytest

from tests.helpers.chat_server import complete, refuse, serve_chat
from verl_pipeline.evaluation.engines import (
    EngineError,
    Generation,
    RequestCheck,
    SampleRequest,
    server_engine,
)
from verl_pipeline.evaluation.engines.server_engine import PROBE_QUESTION, ServerEngine
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation

SAMPLING = SamplingParameters(n=2, max_tokens=4096)
PREFILLED = SampleRequest("t", "b", 0, 5, make_conversation("write b"), prefill="```python\n")
REQUEST = dataclasses.replace(PREFILLED, id="a", prefill="")


@pytest.fixture(scope="module")
def running_server():
    with serve_chat() as state:
        yield state


@pytest.fixture
def server(running_server):
    running_server.reset()
    return running_server


@pytest.fixture(scope="module")
def engines():
    """Engines by their settings: an engine of the openai client takes long to make."""
    made: dict[str, ServerEngine] = {}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture
def make_engine(server, engines):
    def make(**settings):
        key = repr((settings, server.models))
        if key not in engines:
            config = EngineConfig(kind="server", url=server.url, **{"tries": 1, **settings})
            engines[key] = ServerEngine("m", config)
        return engines[key]

    return make


def sample(engine, request=REQUEST, sampling=SAMPLING):
    [(_request, answer)] = engine.generate([request], sampling)
    return answer


def refuse_fields(*names, wording=None):
    """A server that refuses requests with any of these parameters, in the words of `wording`."""

    def reply(body):
        found = [name for name in names if name in body]
        return wording(found[0]) if found else complete()

    return reply


WORDINGS = {
    "OpenAI": lambda name: refuse(
        f"Unsupported parameter: '{name}' is not supported with this model.",
        param=name,
        code="unsupported_parameter",
    ),
    "only the field": lambda name: refuse("Invalid request", param=name),
    "forbidden": lambda name: refuse(f"You are not allowed to request {name} from this model", 403),
    "pydantic": lambda name: (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "not permitted"}]},
        {},
    ),
    "Google": lambda name: refuse(f'Invalid JSON payload. Unknown name "{name}": no such field.'),
    "a bare message": lambda name: (400, {"message": f"property {name} is unsupported"}, {}),
    "plain text": lambda name: (400, f"unknown field `{name}`", {}),
    "an exception": lambda name: (500, f"Traceback: KeyError {name}", {}),
    "no words": lambda _name: (400, "Bad Request", {}),
    "empty": lambda _name: (400, "", {}),
    "every name": lambda _name: refuse(
        "extra: one of temperature top_p max_tokens seed logprobs stop continue_final_message"
    ),
    "another name": lambda _name: refuse("temperature: extra inputs are not permitted"),
}


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize(
    "names",
    [("logprobs",), ("seed",), ("seed", "logprobs"), ("max_tokens",), ("max_tokens", "seed")],
)
def test_what_is_refused_is_found_in_any_words(server, make_engine, wording, names):
    server.reply = refuse_fields(*names, wording=WORDINGS[wording])
    engine = make_engine()
    check = engine.check_requests([REQUEST], SAMPLING)
    left_out = sorted(set(names) - {"max_tokens"})
    assert sorted(check.left_out) == left_out
    assert [
        any(f"refuses {name}," in caveat.text for caveat in check.caveats) for name in left_out
    ] == [True] * len(left_out)
    probes = len(server.bodies)
    assert isinstance(sample(engine), Generation) and len(server.bodies) == probes + 1
    limit = "max_completion_tokens" if "max_tokens" in names else "max_tokens"
    kept = {"temperature": 0.6, "top_p": 0.95, limit: 4096, "seed": 5, "logprobs": True}
    kept |= {"model": "m", "messages": [{"role": "user", "content": "write b"}]}
    assert server.last == {name: value for name, value in kept.items() if name not in left_out}


def test_every_set_of_refused_parameters_is_found_without_words(server, make_engine):
    harmless = ["seed", "logprobs", "stop", "include_stop_str_in_output"]
    for size in range(len(harmless) + 1):
        for names in itertools.combinations(harmless, size):
            server.reply = refuse_fields(*names, wording=WORDINGS["no words"])
            check = make_engine().check_requests([PREFILLED], SAMPLING)
            assert sorted(check.left_out) == sorted(names)


def test_a_server_that_takes_everything_gets_one_probe_and_its_words_stay(server, make_engine):
    engine = make_engine()
    system = {"role": "system", "content": "Be brief."}
    request = dataclasses.replace(REQUEST, messages=(system, *REQUEST.messages))
    check = engine.check_requests([request, REQUEST], SAMPLING)
    assert (check.left_out, check.caveats) == ((), ()) and len(server.bodies) == 1
    assert server.last["messages"] == [system, {"role": "user", "content": PROBE_QUESTION}]
    assert sample(engine) == Generation("2", 3, 4, "stop", -1.0)


@pytest.mark.parametrize("wording", ["OpenAI", "no words", "every name"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_a_parameter_that_shapes_the_samples_is_not_left_out_in_silence(
    server, make_engine, wording, name
):
    server.reply = refuse_fields(name, wording=WORDINGS[wording])
    sampling = SamplingParameters(temperature=0.6, top_p=0.95, top_k=20, max_tokens=64)
    with pytest.raises(EngineError, match=f"^sampling.{name}=.*: the server refuses {name} ") as no:
        make_engine().check_requests([REQUEST], sampling)
    assert f"engine.may_drop=[{name}]" in str(no.value)
    allowed = make_engine(may_drop=[name])
    assert allowed.check_requests([REQUEST], sampling).left_out == (name,)
    sample(allowed, sampling=sampling)
    assert name not in server.last and server.last["seed"] == 5
    neutral = dataclasses.replace(sampling, **{name: {"top_k": -1}.get(name, 1.0)})
    check = make_engine().check_requests([REQUEST], neutral)
    assert check.left_out == (() if name == "top_k" else (name,))


def test_a_temperature_that_only_its_default_may_have(server, make_engine):
    def reply(body):
        if body.get("temperature", 1) != 1:
            return refuse(
                "Unsupported value: 'temperature' does not support 0.6 with this model. Only the "
                "default (1) value is supported.",
                param="temperature",
            )
        return complete()

    server.reply = reply
    with pytest.raises(EngineError, match="set sampling.temperature=1.0, or let it be left out"):
        make_engine().check_requests([REQUEST], SAMPLING)
    default = dataclasses.replace(SAMPLING, temperature=1.0)
    assert make_engine().check_requests([REQUEST], default).left_out == ()
    assert server.last["temperature"] == 1.0


def test_parameters_that_exclude_each_other(server, make_engine):
    server.reply = lambda body: (
        refuse("`temperature` and `top_p` cannot both be specified for this model")
        if {"temperature", "top_p"} <= body.keys()
        else complete()
    )
    with pytest.raises(EngineError, match=r"^sampling.top_p=0.95: the server refuses top_p"):
        make_engine().check_requests([REQUEST], SAMPLING)
    engine = make_engine()
    whole = dataclasses.replace(SAMPLING, top_p=1.0)
    assert engine.check_requests([REQUEST], whole).left_out == ("top_p",)
    sample(engine, sampling=whole)
    assert server.last["temperature"] == 0.6 and "top_p" not in server.last


@pytest.mark.parametrize("ignores_unknown", [True, False])
def test_too_large_a_max_tokens_is_not_taken_for_an_unknown_one(
    server, make_engine, ignores_unknown
):
    def reply(body):
        if body.get("max_tokens", 0) > 1000:
            return refuse("max_tokens is too large: 4096; the model supports at most 1000")
        if not ignores_unknown and "max_completion_tokens" in body:
            return refuse("unknown field max_completion_tokens")
        return complete()

    server.reply = reply
    with pytest.raises(
        EngineError, match=r"sampling.max_tokens=4096: .*at most 1000.*set it lower"
    ):
        make_engine().check_requests([REQUEST], SAMPLING)


def test_a_server_without_any_token_limit(server, make_engine):
    names = ("max_tokens", "max_completion_tokens")
    server.reply = refuse_fields(*names, wording=WORDINGS["OpenAI"])
    with pytest.raises(EngineError, match="sampling.max_tokens=4096: the server refuses"):
        make_engine().check_requests([REQUEST], SAMPLING)
    engine = make_engine(may_drop=["max_tokens"])
    check = engine.check_requests([REQUEST], SAMPLING)
    assert (
        check.left_out == ("max_tokens",)
        and "as long as the server allows" in check.caveats[0].text
    )
    sample(engine)
    assert not set(names) & server.last.keys()


@pytest.mark.parametrize("name", ["continue_final_message", "add_generation_prompt"])
def test_a_prefill_needs_a_server_that_continues_messages(server, make_engine, name):
    server.reply = refuse_fields(name, wording=WORDINGS["pydantic"])
    with pytest.raises(EngineError, match="style=prefill: the server refuses.*set style=chat"):
        make_engine().check_requests([PREFILLED], SAMPLING)
    assert make_engine().check_requests([REQUEST], SAMPLING).left_out == ()


def test_a_prefilled_response_ends_with_its_block_without_a_stop_sequence(server, make_engine):
    def reply(body):
        if "stop" in body:
            return refuse("stop sequences are not available")
        return complete("x = 1\n```\nThis sets x.\n```")

    server.reply = reply
    engine = make_engine()
    assert engine.check_requests([PREFILLED], SAMPLING).left_out == ("stop",)
    assert sample(engine, PREFILLED).response == "```python\nx = 1\n```"


def test_template_arguments_are_not_left_out_in_silence(server, make_engine):
    server.reply = refuse_fields("chat_template_kwargs", wording=WORDINGS["only the field"])
    settings = {"chat_template_kwargs": {"enable_thinking": False}}
    with pytest.raises(EngineError, match=r"^engine.chat_template_kwargs=.*enable_thinking"):
        make_engine(**settings).check_requests([REQUEST], SAMPLING)


def test_each_tasks_sampling_has_its_own_dialect(server, make_engine):
    server.reply = refuse_fields("temperature", wording=WORDINGS["OpenAI"])
    engine = make_engine()
    default = dataclasses.replace(SAMPLING, temperature=1.0)
    assert engine.check_requests([REQUEST], default).left_out == ("temperature",)
    with pytest.raises(EngineError, match="^sampling.temperature=0.6"):
        engine.check_requests([REQUEST], SAMPLING)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (refuse("Incorrect API key provided", 401), "Incorrect API key.*key is in .OPENAI_API_KEY"),
        (refuse("The model `m` does not exist", 404), "HTTP 404: The model `m` does not exist"),
        (refuse("System role not supported"), "System role not supported"),
        (refuse("You have no credit", 402), "HTTP 402: You have no credit"),
        (refuse("quota", 429, code="insufficient_quota"), "HTTP 429: quota"),
        ((200, "<html>", {}), "not JSON"),
        ((200, {"choices": []}, {}), "no choices"),
        (complete(finish_reason="content_filter"), "content_filter"),
    ],
)
def test_a_probe_that_fails_stops_with_the_servers_words(server, make_engine, reply, message):
    server.reply = lambda _body: reply
    with pytest.raises(EngineError, match=f"no other is sent.*{message}|{message}") as caught:
        make_engine().check_requests([REQUEST], SAMPLING)
    assert "engine.url=" in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.bodies) < 10


def test_neutral_values_that_only_vllm_needs_may_be_refused(server, make_engine):
    description = {"id": "m", "object": "model", "max_model_len": 8192}
    server.models = (200, {"data": [description]}, {})
    refused = ("top_k", "min_p", "repetition_penalty")
    server.reply = refuse_fields(*refused, wording=WORDINGS["pydantic"])
    assert make_engine().check_requests([REQUEST], SAMPLING).left_out == refused


def test_a_request_that_runs_for_long_was_accepted(server, make_engine, monkeypatch):
    monkeypatch.setattr(server_engine, "_PROBE_PATIENCE_S", 0.2)
    end = threading.Event()
    server.reply = lambda body: (
        (end.wait(60) and complete())
        if body["messages"][-1]["content"] == PROBE_QUESTION
        else complete()
    )
    engine = make_engine()
    assert engine.check_requests([REQUEST], SAMPLING) == RequestCheck()
    assert isinstance(sample(engine), Generation)
    end.set()
