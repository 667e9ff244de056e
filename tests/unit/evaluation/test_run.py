"""Whole evaluations without a model: preset answers, failures, interruptions, other runs."""

import json

import pytest
from rich.console import Console

from verl_pipeline.evaluation.caveats import read_caveats
from verl_pipeline.evaluation.engines import EngineError, FailedRequest, Generation
from verl_pipeline.evaluation.engines.preset_engine import PresetEngine
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.store import StoreError

SMALL = "tests.helpers.small_task"
QUIET = Console(quiet=True)


def list_texts(task, kind):
    """Return the texts of a task's caveats of one kind."""
    return [caveat.text for caveat in read_caveats(task) if caveat.kind == kind]


def evaluate_small(output, model="canonical", *settings, engine=None, programs=False):
    base_settings = [
        f"model={model}",
        f"tasks=[{SMALL}]",
        f"output={output}",
        f"options.small.programs={programs}",
    ]
    config = load_eval_config(None, [*base_settings, *settings])
    return run_evaluation(config, QUIET, engine)["tasks"][0]


class FaultyEngine(PresetEngine):
    """Answers correctly, but the first ``failures`` requests for ``double`` fail."""

    def __init__(self, failures: int):
        super().__init__("canonical")
        self.failures, self.requested = failures, []

    def generate(self, requests, sampling):
        for request, answer in super().generate(requests, sampling):
            self.requested.append((request.id, request.sample))
            if request.id == "double" and self.failures > 0:
                self.failures -= 1
                yield request, FailedRequest("planted")
            else:
                yield request, answer


class InterruptedEngine(PresetEngine):
    """Raises KeyboardInterrupt after three answers."""

    def generate(self, requests, sampling):
        for count, (request, answer) in enumerate(super().generate(requests, sampling)):
            if count == 3:
                raise KeyboardInterrupt
            yield request, answer


def test_canonical_solutions_score_100_and_empty_answers_0(tmp_path):
    right = evaluate_small(tmp_path / "right", programs=True)
    assert right["pass@1"]["value"] == 1.0 and right["verdicts"] == {"accepted": 8}
    assert right["tier"] == "namespaces, process"
    assert right["counts"] == {
        "problems": 4,
        "expected": 8,
        "samples": 8,
        "failed": 0,
        "infrastructure": 0,
        "truncated": 0,
    }
    assert [(row["name"], row["problems"]) for row in right["breakdown"]["kind"]] == [
        ("function", 1),
        ("number", 1),
        ("stdin", 2),
    ]
    empty = evaluate_small(tmp_path / "empty", "empty", programs=True)
    assert empty["pass@1"]["value"] == 0.0 and empty["verdicts"] == {
        "no_code": 6,
        "wrong_answer": 2,
    }
    assert read_results(tmp_path / "empty")["model"]["name"] == "empty"


def test_failed_requests_are_repeated_and_never_scored(tmp_path):
    engine = FaultyEngine(failures=1)
    result = evaluate_small(tmp_path / "once", engine=engine)
    assert result["counts"]["failed"] == 0 and len(engine.requested) == 9
    result = evaluate_small(tmp_path / "always", engine=FaultyEngine(failures=99))
    assert result["problems_without_samples"] == 1
    assert result["counts"]["failed"] == 2 and result["counts"]["samples"] == 6
    assert result["pass@1"]["value"] == 1.0, "over the generated samples"
    assert ["2 of 8 samples failed" in text for text in list_texts(result, "incomplete")] == [
        True,
        False,
    ]
    assert "1 problems have no graded sample" in list_texts(result, "incomplete")[1]
    assert [row["reason"] for row in read_records(tmp_path / "always/small/failures.jsonl")] == [
        "planted"
    ] * 4
    engine = FaultyEngine(failures=0)
    assert evaluate_small(tmp_path / "always", engine=engine)["counts"]["failed"] == 0
    assert sorted(engine.requested) == [
        ("double", 0),
        ("double", 1),
    ], "only missing samples are requested"


def test_an_interrupted_evaluation_resumes_with_the_same_result(tmp_path):
    whole = evaluate_small(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate_small(tmp_path / "stopped", engine=InterruptedEngine("canonical"))
    samples = tmp_path / "stopped/small/samples.jsonl"
    assert len(list(read_records(samples))) == 3
    samples.write_bytes(
        samples.read_bytes() + b'{"id": "f", "sample": 0, "resp'
    )  # killed while writing
    assert evaluate_small(tmp_path / "stopped") == whole
    assert read_results(tmp_path / "stopped")["calls"] == 2
    by_key = [
        {
            (row["id"], row["sample"]): row
            for row in read_records(tmp_path / name / "small/samples.jsonl")
        }
        for name in ("whole", "stopped")
    ]
    assert by_key[0] == by_key[1]


def test_a_larger_n_adds_samples_and_a_smaller_n_ignores_some(tmp_path):
    evaluate_small(tmp_path, "canonical", "sampling.n=2")
    engine = FaultyEngine(failures=0)
    result = evaluate_small(tmp_path, "canonical", "sampling.n=3", engine=engine)
    assert result["counts"]["samples"] == 12 and len(engine.requested) == 4
    assert evaluate_small(tmp_path, "canonical", "sampling.n=1")["counts"]["samples"] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model=empty"], "name: canonical there, empty now"),
        (["sampling.temperature=0.9"], r"\(sampling.temperature: 0.6 there, 0.9 now\)"),
        (["limit=3"], r"\(limit: none there, 3 now; problems: 4 there, 3 now\)"),
        (["system=Be brief."], r"\(system: none there, Be brief. now\)"),
        (["options.small.programs=True"], r"options.programs: False there, True now\)"),
    ],
)
def test_samples_of_other_runs_are_refused(tmp_path, settings, message):
    evaluate_small(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(StoreError, match=message):
        evaluate_small(tmp_path, "canonical", *settings)
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_results_record_versions_machine_data_and_warnings(tmp_path):
    evaluate_small(tmp_path, "canonical", "purpose=choose")
    found = read_results(tmp_path)
    assert found["schema"] == 2 and found["versions"]["verl"] and found["machine"]["cores"]
    task = found["tasks"][0]
    assert "CHOSEN ON A TEST SET" in list_texts(task, "chosen_on_test")[0]
    assert len(task["data"]["sha256"]) == 64 and task["tier"] == "process"
    (tmp_path / "results.json").write_text(json.dumps({**found, "schema": 0}))
    with pytest.raises(ValueError, match="schema 0"):
        read_results(tmp_path)


def test_answers_from_a_file(tmp_path):
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"id": "number", "response": "\\boxed{204}"},
        {"id": "number", "response": "\\boxed{7}", "task": "small"},
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate_small(tmp_path / "out", str(answers))
    assert result["counts"]["samples"] == 1 and result["counts"]["failed"] == 7
    for number, (text, message) in enumerate(
        {
            '{"id": "number"}\n': ":1: each row must have an id and a response",
            '{"id": "a", "response": null}\n': ":1: each row must have an id and a response",
            "": "no answer in the file",
            "[1]\n": "expected an object",
        }.items()
    ):
        answers.write_text(text)
        with pytest.raises(EngineError, match=message):
            evaluate_small(tmp_path / f"other-{number}", str(answers))


def test_a_truncated_answer_is_counted(tmp_path):
    class TruncatingEngine(PresetEngine):
        def generate(self, requests, sampling):
            for request in requests:
                yield request, Generation("```python\nprint(", 5, 7, "length", -0.5)

    result = evaluate_small(tmp_path, engine=TruncatingEngine("empty"))
    assert result["counts"]["truncated"] == 8 and result["lengths"]["mean"] == 7
    assert result["tokens"] == {"prompt": 40, "generated": 56}


class GuessingEngine(PresetEngine):
    """Answers with the sample's number, and with 204 in the second round."""

    def __init__(self, fails: bool = False):
        super().__init__("empty")
        self.fails, self.requests = fails, []

    def generate(self, requests, sampling):
        for request in requests:
            self.requests.append(request)
            if len(request.messages) == 1:
                yield request, Generation(f"\\boxed{{{request.sample}}}", 5, 10, "stop", -0.5)
            elif self.fails:
                yield request, FailedRequest("planted")
            else:
                yield request, Generation("\\boxed{204}", 5, 20, "stop", -0.1)


def test_a_second_round_is_reused_for_equal_requests_only(tmp_path):
    engine = GuessingEngine()
    result = evaluate_small(tmp_path, "m.x", "refine.n=3", "refine.agreement=0.9", engine=engine)
    assert result["refinement"]["samples"] == 12 and result["refinement"]["problems"] == 4
    [vote, weighted] = [row for row in result["methods"] if "second round" in row["name"]]
    assert (
        vote["value"] == weighted["value"] == 1.0 and vote["tokens_per_problem"] == 2 * 10 + 3 * 20
    )
    assert (
        evaluate_small(
            tmp_path, "m.x", "refine.n=3", "refine.agreement=0.9", engine=GuessingEngine()
        )
        == result
    )
    more = GuessingEngine()
    result = evaluate_small(
        tmp_path, "m.x", "refine.n=3", "refine.agreement=0.9", "sampling.n=4", engine=more
    )
    assert result["refinement"]["samples"] == 12
    assert len(more.requests) == 8 + 12, "other attempts, so another second round"


def test_a_failed_second_round_is_reported(tmp_path):
    result = evaluate_small(
        tmp_path, "m.x", "refine.n=2", "refine.agreement=0.9", engine=GuessingEngine(fails=True)
    )
    assert result["refinement"]["failed"] == 8
    assert "8 samples of the second round failed" in list_texts(result, "second_round")[0]


def test_a_system_prompt_is_part_of_the_data(tmp_path):
    engine = GuessingEngine()
    plain = evaluate_small(tmp_path / "plain", "m.x", engine=GuessingEngine())
    system = evaluate_small(tmp_path / "system", "m.x", "system=Be brief.", engine=engine)
    assert engine.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert plain["data"]["sha256"] != system["data"]["sha256"]


def test_answers_to_other_problems_are_refused(tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "other", "response": "x"}\n')
    with pytest.raises(EngineError, match="ids are like again, double"):
        evaluate_small(tmp_path / "out", str(answers))


def test_a_limit_keeps_the_first_problems(tmp_path):
    result = evaluate_small(tmp_path, "canonical", "limit=2")
    assert result["counts"]["problems"] == 2
    assert "THE FIRST 2 OF 4" in list_texts(result, "limited")[0]
