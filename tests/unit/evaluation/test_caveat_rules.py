"""Each situation that limits a score gives a caveat of its kind, in whole evaluations."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers import small_task
from tests.helpers.thinned import thin_out
from verl_pipeline.evaluation import task_plan
from verl_pipeline.evaluation.caveat_rules import ScoredTask, list_caveats
from verl_pipeline.evaluation.caveats import KINDS, Caveat, mark_name, read_caveats
from verl_pipeline.evaluation.data import DataNotFound
from verl_pipeline.evaluation.engines import FailedRequest, Generation, RequestCheck
from verl_pipeline.evaluation.engines.preset_engine import PresetEngine
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.reward_functions import RewardCall, RewardFunction
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.task import TaskItem

SMALL = "tests.helpers.small_task"
# Tiers that a test cannot have: root may not use rlimits, and remote needs a server.
TIERS = {"degraded_tier": "namespaces, rlimits", "remote_tier": "process, remote"}
# Kinds that no rule gives: of other outputs, or of old files.
ELSEWHERE = {"unrecorded", "unknown", "other_weights"}


class KnownModel(PresetEngine):
    """Answers correctly, as a model with weights would."""

    def __init__(self, **changes):
        super().__init__("canonical")
        self.changes = changes

    def describe_model(self):
        return {"name": "m", "weights": "ab" * 32}

    def generate(self, requests, sampling):
        for request, answer in super().generate(requests, sampling):
            yield request, dataclasses.replace(answer, tokens=3, **self.changes)


class FailingModel(KnownModel):
    def generate(self, requests, sampling):
        for request in requests:
            if request.id == "f" or len(request.messages) > 1:
                yield request, FailedRequest("planted")
            else:
                yield request, Generation(f"\\boxed{{{request.sample}}}", 1, 3, "stop")


class RamblingModel(KnownModel):
    def generate(self, requests, sampling):
        for request in requests:
            yield request, Generation("I wonder.", 1, 3, "stop")


class RefusingServer(KnownModel):
    def check_requests(self, requests, sampling, extra_tokens=0):
        texts = ("dropped_parameters", "server_limits")
        return RequestCheck(("top_p",), tuple(Caveat(kind, kind) for kind in texts))


@pytest.fixture
def small(monkeypatch):
    """Return a function that changes the small task for this test."""

    def change(**changes):
        task = dataclasses.replace(small_task.TASK, **changes)
        monkeypatch.setattr(small_task, "TASK", task)

    return change


def evaluate(output, *settings, engine=None, model="m"):
    base = [f"model={model}", f"tasks=[{SMALL}]", f"output={output}"]
    config = load_eval_config(None, [*base, *settings])
    [task] = run_evaluation(config, Console(quiet=True), engine or KnownModel())["tasks"]
    return task


def list_kinds(task):
    return {caveat.kind for caveat in read_caveats(task)}


def fail_to_rate(_finder, _rewards):
    raise DataNotFound("no standings")


def change_data(**changes):
    def load(finder, programs=True):
        return dataclasses.replace(small_task.load_problems(finder, programs), **changes)

    return load


def write_answers(folder):
    rows = [{"id": item.id, "response": item.canonical} for item in PROBLEMS[1:]]
    rows += [{"id": "again", "response": "more"}, {"id": "other", "response": "x"}]
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PROBLEMS: list[TaskItem] = small_task.load_problems(None).items
SCORED_BY_VERL = TaskItem(
    "verl",
    PROBLEMS[-1].messages,
    canonical="#### 204",
    reward=RewardCall(RewardFunction(), "openai/gsm8k", "204", {}),
)

# kind: (settings, engine, changes of the task), or a function of the folder that returns these.
SITUATIONS = {
    "limited": (["limit=2"], None, {}),
    "other_size": ([], None, {"size": 5}),
    "options": (["options.small.programs=False"], None, {}),
    "bad_rows": ([], None, {"load": change_data(bad_rows=["row 7: no tests"])}),
    "incomplete": ([], FailingModel(), {}),
    "validation_split": ([], None, {"split": "validation"}),
    "chosen_on_test": (["purpose=choose"], None, {}),
    "contaminated": lambda folder: ([f"train_data=[{write_training(folder)}]"], None, {}),
    "preset_answers": (["model=canonical"], PresetEngine("canonical"), {}),
    "dropped_parameters": ([], RefusingServer(), {}),
    "server_limits": ([], RefusingServer(), {}),
    "unknown_weights": ([], PresetEngine("canonical"), {}),
    "upper_bound": ([], None, {"load": change_data(caveats=[Caveat("upper_bound", "x")])}),
    "no_answers": ([], RamblingModel(), {}),
    "training_reward": ([], None, {"load": change_data(items=[SCORED_BY_VERL])}),
    "sampling": (["sampling.temperature=0.9"], None, {}),
    "prompt": (["style=prefill"], None, {}),
    "rope_scaling": (["engine.rope_parameters={rope_type: yarn, factor: 2.0}"], None, {}),
    "truncated": ([], KnownModel(finish="length"), {}),
    "trained_length": (["engine.trained_length=16384"], None, {}),
    "second_round": (["refine.n=2", "refine.agreement=1.0"], FailingModel(), {}),
    "no_rating": ([], None, {"rate": fail_to_rate}),
    "data_note": ([], None, {"load": change_data(notes=["an erratum"])}),
    "unmatched_answers": lambda folder: (
        [f"model={write_answers(folder)}"],
        PresetEngine(str(folder / "answers.jsonl")),
        {},
    ),
}


def write_training(folder):
    path = folder / "train.jsonl"
    path.write_text(json.dumps({"prompt": [{"role": "user", "content": "double"}]}) + "\n")
    return path


def test_a_plain_evaluation_has_no_caveat(tmp_path):
    assert evaluate(tmp_path / "out")["caveats"] == []


@pytest.mark.parametrize("kind", thin_out(SITUATIONS, keep=10))
def test_a_situation_gives_its_caveat(tmp_path, small, kind):
    situation = SITUATIONS[kind]
    settings, engine, changes = situation(tmp_path) if callable(situation) else situation
    small(**changes)
    found = [
        caveat
        for caveat in read_caveats(evaluate(tmp_path / "out", *settings, engine=engine))
        if caveat.kind == kind
    ]
    assert found and all("\n" not in caveat.text for caveat in found)
    if kind == "limited":
        assert found[0].label == "first2"


@pytest.mark.parametrize("kind", TIERS)
def test_a_tier_that_is_not_the_usual_one_gives_a_caveat(tmp_path, kind):
    task = evaluate(tmp_path / "out")
    config = load_eval_config(None, ["model=m", f"tasks=[{SMALL}]"])
    [plan] = task_plan.plan_tasks(config)[1]
    scored = ScoredTask(
        config, plan, RequestCheck(), {"weights": "a"}, {**task, "tier": TIERS[kind]}
    )
    assert [caveat.kind for caveat in list_caveats(scored)] == [kind]


def test_samples_without_answers_that_could_vote_have_no_second_round(tmp_path, small):
    small(load=change_data(items=[SCORED_BY_VERL]))
    task = evaluate(tmp_path / "out", "refine.n=2")
    [text] = [one.text for one in read_caveats(task) if one.kind == "second_round"]
    assert text == "no second round: its votes need answers, and rewards of 0 and 1"
    assert task["refinement"] is None


def test_every_kind_has_a_situation():
    assert SITUATIONS.keys() | TIERS.keys() | ELSEWHERE == KINDS.keys()


def test_a_validation_split_has_no_protocol(tmp_path, small):
    small(split="validation")
    settings = ("options.small.programs=False", "sampling.temperature=0.9", "style=prefill")
    assert list_kinds(evaluate(tmp_path / "out", *settings)) == {"validation_split"}


def test_answers_that_do_not_match_are_named(tmp_path):
    task = evaluate(
        tmp_path / "out",
        "sampling.n=1",
        model=str(write_answers(tmp_path)),
        engine=PresetEngine(str(tmp_path / "answers.jsonl")),
    )
    texts = [one.text.partition(": ")[2] for one in read_caveats(task) if "answers" in one.kind]
    assert texts[:3] == [
        "1 (double) problems have fewer answers than n=1, and the missing ones fail",
        "1 (again) problems have more answers than n=1, and the last ones are left out",
        "1 (other) ids of the file are of no evaluated problem, and their answers are left out",
    ]
    assert task["counts"]["failed"] == 1


def test_every_mark_is_safe_in_a_name():
    names = [mark_name("t", [Caveat(kind, "x")]) for kind in KINDS]
    assert all(name.replace("@", "").replace("-", "").isalnum() for name in names)


def test_the_documentation_lists_every_kind():
    text = (Path(__file__).parents[3] / "docs/evaluation/caveats.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []
