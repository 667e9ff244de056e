"""Scores, votes and the second round, on hand-made samples."""

import math

import pytest

from verl_pipeline.evaluation import answer_methods, scores, second_round
from verl_pipeline.evaluation.eval_settings import BadSetting, RefineConfig
from verl_pipeline.evaluation.graders import make_number_key
from verl_pipeline.evaluation.task import SamplingParameters, TaskItem, make_conversation


def make_sample(answer, reward, tokens=100, logprob=-1.0, shown=None, sample=0, **fields):
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
    TaskItem("a", make_conversation("a"), answer="1", tags={"level": "easy"}),
    TaskItem("b", make_conversation("b"), answer="1", tags={"level": "hard"}),
]
GRADED = {
    "a": [
        make_sample("1", 1.0, 10),
        make_sample("2", 0.0, 300),
        make_sample("1", 1.0, 20),
        make_sample("3", 0.0, 70),
    ],
    "b": [
        make_sample("9", 0.0, 100),
        make_sample("9", 0.0, 100),
        make_sample("1", 1.0, 100),
        make_sample(None, 0.0, 100),
    ],
}
CONFIDENT = answer_methods.load_scorer("mean_logprob")


def test_scores_by_hand():
    found = scores.estimate_scores(GRADED, ITEMS, CONFIDENT, "x")
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


def test_confidence_decides_a_vote():
    graded = {
        "a": [
            make_sample("2", 0.0, logprob=-3.0),
            make_sample("2", 0.0, logprob=-3.0),
            make_sample("1", 1.0, logprob=-0.1),
        ]
    }
    graded["b"] = graded["a"]
    assert answer_methods.score_vote(graded, 3, lambda _row: 1.0)["value"] == 0.0
    assert answer_methods.score_vote(graded, 3, answer_methods.compute_confidence)["value"] == 1.0
    assert answer_methods.compute_confidence(
        make_sample("1", 1.0, logprob=math.log(0.5))
    ) == pytest.approx(0.5)


def test_the_best_of_k_passes_the_tests_in_the_prompt():
    graded = {
        "a": [
            make_sample("x", 0.0, logprob=-0.1, shown=False),
            make_sample("y", 1.0, logprob=-2.0, shown=True),
        ]
    }
    assert answer_methods.score_best_of_k(graded, 2, CONFIDENT)["value"] == 1.0
    assert (
        answer_methods.score_best_of_k(graded, 2, answer_methods.load_scorer("shortest"))["value"]
        == 1.0
    )


def test_scorers_by_name_and_by_path():
    assert answer_methods.load_scorer("shortest")(make_sample("1", 1.0, tokens=5)) == -5
    assert answer_methods.load_scorer("tests.helpers.small_task.score_length")(
        make_sample("1", 1.0)
    ) == len("\\boxed{1}")
    for name in ("nope", "math.sqrt", "os.path", "..x"):
        with pytest.raises(BadSetting, match=f"scorer='{name}'"):
            answer_methods.load_scorer(name)


def test_without_log_probs_a_sample_that_fails_the_shown_tests_is_not_the_best():
    rows = [
        make_sample("x", 0.0, logprob=None, shown=False),
        make_sample("y", 1.0, logprob=None, shown=True),
    ]
    assert answer_methods.score_best_of_k({"a": rows}, 2, CONFIDENT)["value"] == 1.0


def test_a_scorer_does_not_see_rewards():
    with pytest.raises(KeyError, match="reward"):
        answer_methods.score_best_of_k(GRADED, 4, lambda sample: sample["reward"])


def test_all_scores_cover_the_same_problems():
    graded = {"a": [make_sample("1", 0.0)] * 7, "b": [make_sample("1", 1.0)] * 8}
    found = scores.estimate_scores(graded, ITEMS, CONFIDENT, "x")
    assert (
        max(entry["k"] for entry in found["pass@k"])
        == 7
        == max(entry["k"] for entry in found["cons@k"])
    )
    assert found["methods"][0]["tokens_per_problem"] == 100
    assert not any("best" in entry["name"] for entry in found["methods"]), (
        "all samples have equal scores"
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
def test_whole_numbers_vote_by_value(answer, key):
    assert make_number_key(answer) == key


def test_vanishing_weights_give_no_agreement():
    assert second_round.compute_agreement([make_sample("1", 1.0, logprob=-9999.0)]) == 0.0


def test_no_samples_have_no_score():
    assert scores.estimate_scores({}, ITEMS, CONFIDENT, "x")["pass@1"] is None


def test_problems_with_disagreement_enter_the_second_round():
    config = RefineConfig(n=3, agreement=0.6)
    graded = {
        "a": [make_sample("1", 1.0), make_sample("2", 0.0), make_sample(None, 0.0)],
        "b": [make_sample("9", 0.0), make_sample("9", 0.0)],
    }
    assert (
        second_round.compute_agreement(graded["a"]) == pytest.approx(1 / 3)
        and second_round.compute_agreement(graded["b"]) == 1.0
    )
    assert second_round.compute_agreement([make_sample(None, 0.0)]) == 0.0
    unsure = RefineConfig(n=1, agreement=0.1, confidence=0.5)
    assert second_round.find_uncertain_problems(
        {"b": [make_sample("9", 0.0, logprob=math.log(0.4))]}, unsure
    ) == ["b"]
    assert (
        second_round.find_uncertain_problems(
            {"b": [make_sample("9", 0.0, logprob=math.log(0.6))]}, unsure
        )
        == []
    )
    requests = list(
        second_round.make_requests("t", "chat", ITEMS, graded, config, SamplingParameters())
    )
    assert [(request.id, request.sample) for request in requests] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
    ]
    assert len({request.seed for request in requests}) == 3
    first = requests[0].messages
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    assert first[1]["content"] == "\\boxed{1}"


@pytest.mark.parametrize(("shown", "has_feedback"), [(False, True), (True, False), (None, False)])
def test_a_second_round_never_reveals_hidden_tests(shown, has_feedback):
    graded = {"a": [make_sample("1", 0.0, shown=shown), make_sample("2", 0.0, shown=shown)]}
    for request in second_round.make_requests(
        "t", "chat", ITEMS, graded, RefineConfig(n=2, agreement=0.9), SamplingParameters()
    ):
        text = request.messages[-1]["content"]
        assert ("hidden test 7" in text) == has_feedback
        assert ("wrong_answer" in text) == has_feedback


def test_both_rounds_vote_and_count_in_the_cost():
    graded = {
        "a": [make_sample("1", 1.0, 100), make_sample("2", 0.0, 100)],
        "b": [make_sample("9", 0.0, 100), make_sample("9", 0.0, 100)],
    }
    second = {
        "a": [make_sample("2", 0.0, 50), make_sample("1", 1.0, 50), make_sample("1", 1.0, 50)]
    }
    plain, weighted = second_round.score_both_rounds(graded, second)
    assert plain["value"] == weighted["value"] == 0.5
    assert plain["tokens_per_problem"] == (350 + 200) / 2
