"""What a user sees of an evaluation on a server: caveats, first failures, and early stops."""

import json
import re

import pytest
from typer.testing import CliRunner

from tests.helpers.chat_server import complete, refuse, serve_chat
from verl_pipeline.cli import app
from verl_pipeline.evaluation.engines.server_engine import PROBE_QUESTION
from verl_pipeline.evaluation.recorded_files import read_records

ROWS = [{"question": f"{n}+0?", "answer": f"so\n#### {n}"} for n in range(4)]


@pytest.fixture
def server():
    with serve_chat() as state:
        state.reply = answer
        yield state


def answer(body, **changes):
    """Repeats the first number of the question as the answer."""
    [number, *_] = re.findall(r"\d+", body["messages"][-1]["content"])
    return complete(f"\\boxed{{{number}}}", **changes)


@pytest.fixture
def evaluate(server, tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    output = tmp_path / "out"

    def run(*settings):
        arguments = ["eval", "--model", "m", "--tasks", "gsm8k", "--data", str(tmp_path)]
        arguments += ["--output", str(output), "engine.kind=server", f"engine.url={server.url}"]
        arguments += ["sampling.max_tokens=64", "sampling.n=1", "engine.tries=1"]
        ran = CliRunner().invoke(app, [*arguments, *settings], env={"COLUMNS": "300"})
        results = output / "results.json"
        content = json.loads(results.read_text()) if results.is_file() else None
        return ran.exit_code, ran.output, content, output

    return run


def test_a_caveat_travels_with_its_number(server, evaluate):
    server.reply = lambda body: (
        refuse("no logprobs with this model") if "logprobs" in body else answer(body, logprobs=None)
    )
    code, screen, results, output = evaluate()
    assert code == 0 and results["tasks"][0]["pass@1"]["value"] == 1.0
    caveat = "the server refuses logprobs, so it is left out: there is no confidence"
    # Once before the samples, and once with the scores.
    assert screen.index(caveat) < screen.index("generated") < screen.rindex(f"gsm8k: {caveat}")
    assert any(caveat in row["text"] for row in results["tasks"][0]["caveats"])
    settings = json.loads((output / "gsm8k" / "settings.json").read_text())
    assert settings["left_out"] == ["logprobs"]
    # A server that takes more by now would mix samples with other ones.
    server.reply = answer
    code, screen, *_ = evaluate("sampling.n=2")
    assert code == 2 and "left_out: logprobs there, none now" in screen


def test_nothing_is_said_of_a_server_that_takes_everything(evaluate):
    code, screen, results, output = evaluate()
    assert code == 0 and "refuses" not in screen
    kinds = [row["kind"] for row in results["tasks"][0]["caveats"]]
    assert kinds == ["other_size", "sampling", "unknown_weights"]
    assert "left_out" not in json.loads((output / "gsm8k" / "settings.json").read_text())


def test_a_probe_that_fails_stops_the_evaluation(server, evaluate):
    server.reply = lambda _body: refuse("planted: this key may not use the model", 401)
    code, screen, results, output = evaluate()
    assert code == 2 and results is None and not (output / "gsm8k").exists()
    assert "planted: this key may not use the model" in screen and "rerun the command" in screen
    assert len(server.bodies) == 1


def test_a_dropped_temperature_stops_the_evaluation_unless_allowed(server, evaluate):
    server.reply = lambda body: (
        refuse("planted", param="temperature") if "temperature" in body else answer(body)
    )
    code, screen, results, _output = evaluate("sampling.temperature=0.6")
    assert code == 2 and results is None and "sampling.temperature=0.6: the server" in screen
    code, screen, results, output = evaluate(
        "sampling.temperature=0.6", "engine.may_drop=[temperature]"
    )
    assert code == 0 and results["tasks"][0]["pass@1"]["value"] == 1.0
    assert any(
        row["kind"] == "dropped_parameters"
        and "samples with its own temperature (HTTP 400" in row["text"]
        for row in results["tasks"][0]["caveats"]
    )
    settings = json.loads((output / "gsm8k" / "settings.json").read_text())
    assert settings["left_out"] == ["temperature"]


def test_the_first_failure_of_a_sample_is_shown_at_once(server, evaluate):
    def reply(body):
        if body["messages"][-1]["content"] == PROBE_QUESTION:
            return answer(body)
        if "3+0" in body["messages"][-1]["content"]:
            return answer(body)
        return refuse("planted: the prompt is too long")

    server.reply = reply
    code, screen, results, output = evaluate("engine.concurrency=1")
    assert code == 3 and results["tasks"][0]["counts"]["failed"] == 3
    assert screen.count("planted: the prompt is too long") == 1
    assert screen.index("gsm8k: sample 0 of") < screen.index("pass@1")
    assert len(list(read_records(output / "gsm8k" / "failures.jsonl"))) == 6


def test_a_server_that_ends_with_other_words_and_thinks_apart(server, evaluate):
    server.reply = lambda body: answer(
        body, finish_reason="eos_token", message={"reasoning_content": "\\boxed{9}"}
    )
    code, _screen, results, output = evaluate()
    assert code == 0 and results["tasks"][0]["pass@1"]["value"] == 1.0
    rows = list(read_records(output / "gsm8k" / "samples.jsonl"))
    assert rows[0]["response"].startswith("<think>\\boxed{9}</think>\\boxed{")


def test_thoughts_without_an_answer_are_pointed_out(server, evaluate):
    def reply(body):
        status, content, headers = answer(body)
        message = content["choices"][0]["message"]
        message["reasoning"], message["content"] = message["content"], None
        return status, content, headers

    server.reply = reply
    _code, screen, results, _output = evaluate()
    assert results["tasks"][0]["pass@1"]["value"] == 0.0
    assert "thoughts without an answer" in screen and "reasoning parser off" in screen


def test_a_server_that_counts_no_tokens(server, evaluate):
    server.reply = lambda body: answer(body, usage=None, logprobs=None)
    code, screen, results, _output = evaluate()
    assert code == 0 and results["tasks"][0]["pass@1"]["value"] == 1.0
    assert "the server does not count tokens" in screen and results["tasks"][0]["budget"] == []
