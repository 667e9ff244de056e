"""Scores and votes of hand-made samples, and the second round."""

import math

import pytest

from verl_pipeline.evaluation import refine, scores
from verl_pipeline.evaluation.config import BadSetting, RefineConfig
from verl_pipeline.evaluation.graders import number_key
from verl_pipeline.evaluation.task import Item, Sampling, asked


def row(answer, reward, tokens=100, logprob=-1.0, shown=None, sample=0, **fields):
    fields = {
        "verdict": "accepted" if reward else "wrong_answer",
        "reason": "hidden test 7",
        **fields,
    }
    return {
        "id": "a",
        "sample": sample,
        "response": f"\\boxed{{{answer}}}",
        "answer": answer,
        "reward": reward,
        "prompt_tokens": 5,
        "tokens": tokens,
        "mean_logprob": logprob,
        "shown": shown,
        "finish": "stop",
        **fields,
    }


ITEMS = [
    Item("a", asked("a"), answer="1", tags={"level": "easy"}),
    Item("b", asked("b"), answer="1", tags={"level": "hard"}),
]
GRADED = {
    "a": [row("1", 1.0, 10), row("2", 0.0, 300), row("1", 1.0, 20), row("3", 0.0, 70)],
    "b": [row("9", 0.0, 100), row("9", 0.0, 100), row("1", 1.0, 100), row(None, 0.0, 100)],
}
CONFIDENT = scores.scorer_of("mean_logprob")


def test_scores_by_hand():
    found = scores.scores(GRADED, ITEMS, CONFIDENT, "x")
    assert found["pass@1"]["value"] == pytest.approx((0.5 + 0.25) / 2)
    by_k = {entry["k"]: entry["value"] for entry in found["pass@k"]}
    assert by_k[2] == pytest.approx(((1 - 1 / 6) + (1 - 3 / 6)) / 2) and by_k[4] == 1.0
    [vote_of_4] = [entry for entry in found["cons@k"] if entry["k"] == 4]
    assert vote_of_4["value"] == 0.5, "1 wins in a, 9 in b"
    assert vote_of_4["tokens_per_problem"] == 400
    assert [(entry["tokens"], entry["value"]) for entry in found["budget"]] == [
        (64, pytest.approx(0.25)),
        (128, pytest.approx((0.5 + 0.25) / 2)),
        (256, pytest.approx((0.5 + 0.25) / 2)),
        (512, pytest.approx((0.5 + 0.25) / 2)),
    ]
    assert [(entry["name"], entry["value"]) for entry in found["breakdown"]["level"]] == [
        ("easy", 0.5),
        ("hard", 0.25),
    ]
    assert sum(entry["count"] for entry in found["lengths"]["histogram"]) == 8
    assert sum(entry["accepted"] for entry in found["lengths"]["histogram"]) == 3


def test_confidence_turns_a_vote():
    graded = {
        "a": [row("2", 0.0, logprob=-3.0), row("2", 0.0, logprob=-3.0), row("1", 1.0, logprob=-0.1)]
    }
    graded["b"] = graded["a"]
    assert scores.voted(graded, 3, lambda _row: 1.0)["value"] == 0.0
    assert scores.voted(graded, 3, scores.confidence)["value"] == 1.0
    assert scores.confidence(row("1", 1.0, logprob=math.log(0.5))) == pytest.approx(0.5)


def test_the_best_of_k_comes_after_the_shown_tests():
    graded = {
        "a": [row("x", 0.0, logprob=-0.1, shown=False), row("y", 1.0, logprob=-2.0, shown=True)]
    }
    assert scores.best(graded, 2, CONFIDENT)["value"] == 1.0
    assert scores.best(graded, 2, scores.scorer_of("shortest"))["value"] == 1.0


def test_scorers():
    assert scores.scorer_of("shortest")(row("1", 1.0, tokens=5)) == -5
    assert scores.scorer_of("tests.unit.evaluation.small.longest")(row("1", 1.0)) == len(
        "\\boxed{1}"
    )
    for name in ("nope", "math.sqrt", "os.path", "..x"):
        with pytest.raises(BadSetting, match=f"scorer='{name}'"):
            scores.scorer_of(name)


def test_a_sample_without_logprobs_that_fails_what_is_shown_is_not_the_best():
    rows = [row("x", 0.0, logprob=None, shown=False), row("y", 1.0, logprob=None, shown=True)]
    assert scores.best({"a": rows}, 2, CONFIDENT)["value"] == 1.0


def test_a_scorer_does_not_see_grades():
    with pytest.raises(KeyError, match="reward"):
        scores.best(GRADED, 4, lambda sample: sample["reward"])


def test_all_figures_rest_on_the_same_problems():
    graded = {"a": [row("1", 0.0)] * 7, "b": [row("1", 1.0)] * 8}
    found = scores.scores(graded, ITEMS, CONFIDENT, "x")
    assert (
        max(entry["k"] for entry in found["pass@k"])
        == 7
        == max(entry["k"] for entry in found["cons@k"])
    )
    assert found["methods"][0]["tokens_per_problem"] == 100
    assert not any("best" in entry["name"] for entry in found["methods"]), (
        "all samples have one score"
    )


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("204", "204"),
        (" 0204", "204"),
        ("204.0", "204"),
        ("1,000", "1000"),
        ("1,2", "1,2"),
        ("1_000", "1_000"),
        ("$5$", "5"),
    ],
)
def test_numbers_vote_by_value(answer, key):
    assert number_key(answer) == key


def test_weights_that_vanish_agree_with_nobody():
    assert refine.agreement([row("1", 1.0, logprob=-9999.0)]) == 0.0


def test_no_sample_no_score():
    assert scores.scores({}, ITEMS, CONFIDENT, "x")["pass@1"] is None


def test_a_second_round_asks_where_samples_disagree():
    config = RefineConfig(n=3, agreement=0.6)
    graded = {
        "a": [row("1", 1.0), row("2", 0.0), row(None, 0.0)],
        "b": [row("9", 0.0), row("9", 0.0)],
    }
    assert (
        refine.agreement(graded["a"]) == pytest.approx(1 / 3)
        and refine.agreement(graded["b"]) == 1.0
    )
    assert refine.agreement([row(None, 0.0)]) == 0.0
    unsure = RefineConfig(n=1, agreement=0.1, confidence=0.5)
    assert refine.uncertain({"b": [row("9", 0.0, logprob=math.log(0.4))]}, unsure) == ["b"]
    assert refine.uncertain({"b": [row("9", 0.0, logprob=math.log(0.6))]}, unsure) == []
    asked_again = list(refine.requests("t", "chat", ITEMS, graded, config, Sampling()))
    assert [(request.id, request.sample) for request in asked_again] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
    ]
    assert len({request.seed for request in asked_again}) == 3
    first = asked_again[0].messages
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    assert first[1]["content"] == "\\boxed{1}"


@pytest.mark.parametrize(("shown", "tells"), [(False, True), (True, False), (None, False)])
def test_a_second_round_never_tells_of_hidden_tests(shown, tells):
    graded = {"a": [row("1", 0.0, shown=shown), row("2", 0.0, shown=shown)]}
    for request in refine.requests(
        "t", "chat", ITEMS, graded, RefineConfig(n=2, agreement=0.9), Sampling()
    ):
        text = request.messages[-1]["content"]
        assert ("hidden test 7" in text) == tells and ("wrong_answer" in text) == tells


def test_both_rounds_vote_and_cost():
    graded = {
        "a": [row("1", 1.0, 100), row("2", 0.0, 100)],
        "b": [row("9", 0.0, 100), row("9", 0.0, 100)],
    }
    second = {"a": [row("2", 0.0, 50), row("1", 1.0, 50), row("1", 1.0, 50)]}
    plain, weighted = refine.combined(graded, second)
    assert plain["value"] == weighted["value"] == 0.5
    assert plain["tokens_per_problem"] == (350 + 200) / 2
