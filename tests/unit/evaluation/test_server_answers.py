"""What grading sees of a server's answer, in every form that servers give it."""

import itertools

import pytest

from tests.helpers.chat_server import complete
from verl_pipeline.evaluation.engines import FailedRequest, Generation, SampleRequest
from verl_pipeline.evaluation.engines.server_answers import read_answer
from verl_pipeline.evaluation.task import make_conversation
from verl_pipeline.grading.program_extraction import extract_answer_text

REQUEST = SampleRequest("t", "a", 0, 1, make_conversation("a"))


def read(content="2", max_tokens=100, request=REQUEST, thinks=True, **changes):
    _status, answer, _headers = complete(content, **changes)
    return read_answer(request, answer, max_tokens, thinks=thinks)


@pytest.mark.parametrize(
    "reason",
    [
        *("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "end-turn", "completed"),
        *("FinishReason.STOP", "", None, {"type": "stop", "matched": 151645}),
    ],
)
def test_the_model_ended_it(reason):
    assert read(finish_reason=reason) == Generation("2", 3, 4, "stop", -1.0)


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "max_length"),
        *("FinishReason.MAX_TOKENS", {"type": "length", "length": 4}),
    ],
)
def test_the_maximum_length_ended_it(reason):
    assert read(finish_reason=reason).finish == "length"


@pytest.mark.parametrize("reason", ["", None, "null"])
def test_without_a_reason_the_count_decides(reason):
    assert read(finish_reason=reason, max_tokens=5).finish == "stop"
    assert read(finish_reason=reason, max_tokens=4).finish == "length"


@pytest.mark.parametrize(
    "reason",
    [
        *("content_filter", "safety", "SAFETY", "error", "abort", "cancelled", "tool_calls"),
        *("insufficient_system_resource", "function_call", "recitation", "timeout"),
    ],
)
def test_something_else_ended_it(reason):
    failure = read("Half an ans", finish_reason=reason)
    assert isinstance(failure, FailedRequest) and reason in failure.reason


THOUGHTS = [
    {"message": {"reasoning_content": "hm"}},
    {"message": {"reasoning": "hm"}},
    {"message": {"thinking": "hm"}},
    {"message": {"reasoning": "hm", "reasoning_content": "hm"}},
    {"message": {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text"}]}},
    {"thought_part": {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}},
    {"thought_part": {"type": "thinking", "thinking": "hm", "signature": "x"}},
    {"thought_part": {"type": "reasoning", "text": "hm"}},
    {"thought_part": {"type": "reasoning", "reasoning": "hm"}},
]
TEXTS = ["2", [{"type": "text", "text": "2"}], ["2"], [{"type": "output_text", "text": "2"}]]


@pytest.mark.parametrize("content", TEXTS, ids=repr)
def test_text_comes_in_several_forms(content):
    assert read(content).response == "2"


@pytest.mark.parametrize(("thoughts", "content"), itertools.product(THOUGHTS, TEXTS), ids=repr)
def test_thoughts_stand_in_tags_before_the_answer(thoughts, content):
    changes = dict(thoughts)
    if part := changes.pop("thought_part", None):
        content = [part, *(content if isinstance(content, list) else [content])]
    response = read(content, **changes).response
    assert response == "<think>hm</think>2" and extract_answer_text(response) == "2"


@pytest.mark.parametrize("thoughts", THOUGHTS, ids=repr)
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_thoughts_without_an_answer_are_no_answer(thoughts, finish):
    changes = dict(thoughts)
    part = changes.pop("thought_part", None)
    for content in [[part]] if part else [None, "", []]:
        answer = read(content, finish_reason=finish, **changes)
        closing = "</think>" if finish == "stop" else ""
        assert answer.response == f"<think>hm{closing}" and answer.finish == finish
        assert extract_answer_text(answer.response) == ""
        # With thinking switched off, a reasoning parser has taken the answer for thoughts.
        assert read(content, finish_reason=finish, thinks=False, **changes).response == "hm"


def test_a_cut_off_answer_keeps_its_closed_thoughts():
    message = {"reasoning": "hm"}
    assert read("half", finish_reason="length", message=message).response == (
        "<think>hm</think>half"
    )


def test_tags_in_the_text_are_not_doubled():
    text = "<think>hm</think>2"
    assert read(text, message={"reasoning_content": "hm"}).response == text
    assert read(text).response == text
    assert extract_answer_text(read("hm</think>2").response) == "2"


def test_a_refusal_of_the_model_is_its_answer():
    assert read(None, message={"refusal": "I cannot."}).response == "I cannot."


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        "text",
        {"choices": []},
        {"choices": None, "error": {"message": "provider returned error", "code": 502}},
        {"choices": [None]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "stop", "message": None}]},
        complete(None)[1],
        complete(5)[1],
        complete([5])[1],
        complete("2", logprobs={"content": [{"token": "2"}]})[1],
    ],
    ids=repr,
)
def test_what_is_no_response_is_a_failure(answer):
    failure = read_answer(REQUEST, answer, 100)
    assert isinstance(failure, FailedRequest)
    if isinstance(answer, dict) and "error" in answer:
        assert "provider returned error" in failure.reason


def test_an_empty_response_is_the_models():
    """The model may end at once; a text of many tokens that does not arrive is lost, not empty."""
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    assert read("", usage=usage).response == read(None, usage=usage).response == ""
    assert read(None, finish_reason="length").response == "", "cut off within hidden thoughts"


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_log_probs_may_be_missing(logprobs):
    assert read(logprobs=logprobs).mean_logprob is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_tokens_are_counted_by_log_probs_or_not_at_all(usage):
    assert read(usage=usage).tokens == 2
    uncounted = complete("2", usage=usage, logprobs=None)[1]
    assert read_answer(REQUEST, uncounted, 100, counts_tokens=False).tokens == 0
    failure = read_answer(REQUEST, uncounted, 100)
    assert isinstance(failure, FailedRequest) and "did not count" in failure.reason
