"""A caveat travels with its number: every kind of caveat is in every output of a score.

A new output of scores belongs in :data:`OUTPUTS`; a test finds files that show scores and are in no
list here.
"""

import html
import io
import json
import math
import re
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tests.helpers.small_model_files import write_model_files
from tests.helpers.thinned import thin_out
from verl_pipeline.evaluation.caveats import KINDS, Caveat, mark_name, read_caveats
from verl_pipeline.evaluation.checkpoint_evaluation import make_metrics
from verl_pipeline.evaluation.comparison import compare_folders
from verl_pipeline.evaluation.engines.model_folder import hash_weights
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.old_results import add_row_caveats
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.results_page import write_results_page
from verl_pipeline.evaluation.score_tables import (
    print_checkpoints,
    print_comparison,
    print_scores,
)
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.outputs.files import write_json
from verl_pipeline.recipes.deepcoder.card import build_card
from verl_pipeline.recipes.deepcoder.demo_report import (
    compute_gain,
    render_markdown,
    summarize_evaluation,
)

ROOT = Path(__file__).parents[3]
TEXT = "planted caveat of a score"
# Files that name pass@1 without showing it to anyone, and why.
NO_OUTPUTS = {
    "verl_pipeline/evaluation/scores.py": "computes it",
    "verl_pipeline/evaluation/commands.py": "help texts; score_tables.py prints",
    "verl_pipeline/evaluation/task.py": "describes published scores",
    "verl_pipeline/evaluation/recorded_results.py": "the shape of the file",
    "verl_pipeline/metrics/own_metrics.py": "describes the metric",
    "verl_pipeline/evaluation/estimators.py": "computes it",
    "verl_pipeline/evaluation/answer_methods.py": "computes it",
    "verl_pipeline/report/score_charts.py": "draws what report/evaluation_page.py names",
}


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """A real evaluation of the small task, under the name ``parquet``, without caveats.

    The demonstration's report reads the task of that name.
    """
    folder = tmp_path_factory.mktemp("evaluated")
    settings = ["model=canonical", "tasks=[tests.helpers.small_task]", "sampling.n=2"]
    settings += ["options.small.programs=False", f"output={folder / 'out'}"]
    run_evaluation(load_eval_config(None, settings), Console(quiet=True))
    results = read_results(folder / "out")
    (folder / "out/small").rename(folder / "out/parquet")
    results["tasks"][0] |= {"task": "parquet", "caveats": [], "lengths": {"mean": 3.0}}
    # No charts: they take the page most of its time, and caveats are texts.
    results["tasks"][0] |= {"verdicts": {}} | dict.fromkeys(("pass@k", "budget", "methods"), [])
    results["model"] |= {"weights": "ab" * 32}
    published = {"model": "M", "value": 50.0, "measure": "pass@1", "source": "paper", "note": ""}
    results["tasks"][0]["published"] = [published]
    write_json(folder / "out/results.json", results)
    return folder / "out"


@pytest.fixture
def with_caveats(evaluated, tmp_path):
    """Return a function that copies the evaluation and gives its task these caveats."""

    def copy(*caveats, name="with"):
        folder = tmp_path / name
        shutil.copytree(evaluated, folder)
        results = json.loads((folder / "results.json").read_text())
        results["tasks"][0]["caveats"] = [caveat.as_dict() for caveat in caveats]
        write_json(folder / "results.json", results)
        return folder

    return copy


def show(print_with, *arguments):
    stream = io.StringIO()
    print_with(Console(file=stream, width=300), *arguments)
    return stream.getvalue()


def make_row(folder, step=4):
    """Return a row of checkpoints.json, as the watcher makes it."""
    [task] = read_results(folder)["tasks"]
    return {
        "step": step,
        "weights": None,
        "tasks": {
            "parquet": {
                "pass@1": task["pass@1"],
                "mean_reward": task["mean_reward"],
                "samples": 8,
                "failed": 0,
                "truncated": 0,
                "mean_tokens": 0.0,
                "caveats": task["caveats"],
            }
        },
    }


def write_page_text(folder):
    """Return the texts of the page, which needs no script to show them."""
    page = write_results_page(folder).read_text()
    body = page.partition("<body>")[2]
    return html.unescape(re.sub(r"<script\b.*?</script>|<[^>]*>", " ", body, flags=re.DOTALL))


def write_run(folder):
    """Write the files of a training with one stage; return the folders of run and data."""
    run, data = folder / "run", folder / "data"
    for one in (run, data):
        one.mkdir(exist_ok=True)
    stage = {"first_step": 0, "settings": {}, "ended_at": 3, "why": "last step"}
    identity = {"actor_rollout_ref.model.path": "org/base"}
    write_json(run / "stages.json", {"identity": identity, "stages": {"short": stage}})
    write_json(
        data / "report.json", {"sources": {}, "stages": [], "evaluations": {}, "warnings": []}
    )
    return run, data


def write_card(folder):
    return str(build_card(*write_run(folder), [folder], "small"))


def write_demo(folder):
    base = summarize_evaluation(folder, 10)
    row = {"stage": "short", "limit": 10, "held_out": base, "gain": compute_gain(folder, folder)}
    training = {"steps": 1, "trajectories": 1, "trained_on": 1, "skipped_updates": 0}
    shares = {"truncated": base["pass@1"], "reward": base["pass@1"]}
    report = {"base": base, "arms": {"arm": [{**row, "training": training | shares}]}}
    return render_markdown({**report, "between": []})


# Each takes the folder of an evaluation and returns what a reader sees, by file that shows scores.
OUTPUTS = {
    "verl_pipeline/evaluation/score_tables.py": lambda folder: show(
        print_scores, read_results(folder)
    ),
    "verl_pipeline/evaluation/score_tables.py: checkpoints": lambda folder: show(
        print_checkpoints, [make_row(folder)]
    ),
    "verl_pipeline/evaluation/score_tables.py: comparison": lambda folder: show(
        print_comparison, compare_folders(folder, folder)
    ),
    "verl_pipeline/evaluation/comparison.py": lambda folder: json.dumps(
        compare_folders(folder, folder)
    ),
    "verl_pipeline/evaluation/results.py": lambda folder: (folder / "results.json").read_text(),
    "verl_pipeline/report/evaluation_page.py": write_page_text,
    "verl_pipeline/recipes/deepcoder/card.py": write_card,
    "verl_pipeline/recipes/deepcoder/card_scores.py": write_card,
    "verl_pipeline/recipes/deepcoder/card.md.jinja": write_card,
    "verl_pipeline/recipes/deepcoder/demo_report.py": write_demo,
}
# These show the kind, since trackers take numbers only.
METRICS = "verl_pipeline/evaluation/checkpoint_evaluation.py"


@pytest.mark.parametrize("kind", thin_out(KINDS, keep=6))
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_has_every_caveat(with_caveats, output, kind):
    assert TEXT not in OUTPUTS[output](with_caveats())
    folder = with_caveats(Caveat(kind, f"{TEXT}: {kind}"), name="caveat")
    assert f"{TEXT}: {kind}" in OUTPUTS[output](folder)


@pytest.mark.parametrize("kind", [kind for kind, rule in KINDS.items() if rule.label])
@pytest.mark.parametrize(
    "output", [name for name in OUTPUTS if not name.endswith(("demo_report.py", "results.py"))]
)
def test_no_table_gives_such_a_score_the_benchmarks_name(with_caveats, output, kind):
    shown = OUTPUTS[output](with_caveats(Caveat(kind, TEXT)))
    assert re.search(f"(Small|parquet)@{KINDS[kind].label}\\b", shown)


@pytest.mark.parametrize("kind", KINDS)
def test_trackers_get_another_name_or_a_flag(with_caveats, kind):
    metrics = make_metrics(make_row(with_caveats(Caveat(kind, TEXT))))
    name = mark_name("parquet", [Caveat(kind, TEXT)])
    assert metrics[f"eval/{name}/caveats/{kind}"] == 1.0 and f"eval/{name}/pass@1/value" in metrics
    assert ("eval/parquet/pass@1/value" in metrics) == (not KINDS[kind].label)


@pytest.mark.parametrize("kind", KINDS)
def test_no_barred_score_enters_the_model_index(with_caveats, kind):
    text = write_card(with_caveats(Caveat(kind, TEXT)))
    header = yaml.safe_load(text.split("---")[1])
    if KINDS[kind].bars:
        assert "model-index" not in header and "left out of the hub's model-index" in text
        assert "not comparable with the score above" in text
    else:
        [result] = header["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == 100.0
        assert result["metrics"][0]["args"]["temperature"] == 0.6


@pytest.mark.parametrize("value", [0.0625, 0.9375, 0.0645, 0.0635, 1 / 3, 0.99951, 0.00049])
def test_all_outputs_round_a_score_alike(with_caveats, value):
    folder = with_caveats()
    results = json.loads((folder / "results.json").read_text())
    results["tasks"][0]["pass@1"] = {"value": value, "low": None, "high": None}
    write_json(folder / "results.json", results)
    shown = f"{math.floor(Fraction(repr(value)) * 1000 + Fraction(1, 2)) / 10:.1f} %"
    comparison = compare_folders(folder, folder)
    comparison[0] |= {"before": value, "after": value}
    texts = {name: OUTPUTS[name](folder) for name in OUTPUTS if "omparison" not in name}
    texts["comparison"] = show(print_comparison, comparison)
    stored = texts.pop("verl_pipeline/evaluation/results.py")
    assert json.loads(stored)["tasks"][0]["pass@1"]["value"] == value
    for name, text in texts.items():
        assert re.search(rf"(?<![\d.]){re.escape(shown)}", text), (name, shown, text)


def test_outputs_show_the_mean_reward_where_there_is_no_pass_at_1(with_caveats):
    folder = with_caveats()
    results = json.loads((folder / "results.json").read_text())
    reward = {"value": 1.0625, "low": -0.5, "high": 2.0005}
    results["tasks"][0] |= {"pass@1": None, "mean_reward": reward}
    results["tasks"][0] |= dict.fromkeys(("pass@k", "cons@k", "budget", "methods"), [])
    write_json(folder / "results.json", results)
    shown = "mean reward 1.063 [-0.500, 2.001]"
    assert shown in show(print_scores, results)
    assert f"{shown} *" in show(print_checkpoints, [make_row(folder)])
    assert f"| Small | {shown} |" in write_card(folder)
    assert shown in " ".join(write_page_text(folder).split())
    metrics = make_metrics(make_row(folder))
    assert metrics["eval/parquet/mean_reward/low"] == -0.5
    assert "eval/parquet/pass@1/value" not in metrics


def test_every_file_that_shows_scores_is_tested_here():
    listed = {name.partition(":")[0] for name in OUTPUTS} | NO_OUTPUTS.keys() | {METRICS}
    found = {
        str(path.relative_to(ROOT))
        for room in ("verl_pipeline", "benchmarks")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".js", ".jinja", ".html")
        and "tasks" not in path.parts
        and "pass@1" in path.read_text()
    }
    assert found - listed == set()
    assert {name for name in listed if not (ROOT / name).is_file()} == set()


def test_a_score_of_other_weights_is_refused(with_caveats, tmp_path):
    model = tmp_path / "run/checkpoints-of-another/model"
    folder = with_caveats()
    run, data = write_run(tmp_path)
    write_model_files(model)
    results = json.loads((folder / "results.json").read_text())

    def read_header(weights, **options):
        write_json(folder / "results.json", {**results, "model": {"name": "m", "weights": weights}})
        text = str(build_card(run, data, [folder], "small", **options))
        return text, yaml.safe_load(text.split("---")[1])

    text, header = read_header(hash_weights(model), model=model)
    assert "model-index" in header and "weights" not in text
    text, header = read_header("cd" * 32, model=model)
    assert "model-index" not in header
    assert "with other weights (SHA-256 cdcdcdcdcdcd...)" in text
    assert "Small@other-weights" in text
    for weights, options in (("cd" * 32, {}), (None, {"model": model})):
        text, header = read_header(weights, **options)
        assert "model-index" in header and "unknown whether" in text
    # By default, the model of the last stage's last checkpoint.
    write_model_files(run / "short/checkpoints/global_step_3/actor/huggingface")
    text, header = read_header("cd" * 32)
    assert "model-index" not in header and "with other weights" in text


def test_results_of_an_earlier_version_keep_what_they_say_and_bar(with_caveats):
    folder = with_caveats()
    results = json.loads((folder / "results.json").read_text())
    [task] = results["tasks"]
    del task["caveats"]
    task["data"]["notes"] = [
        "ONLY THE FIRST 16 OF 164 PROBLEMS (limit): not comparable with other results",
        "SAMPLE TESTS ONLY: an upper bound",
        "an erratum",
    ]
    warnings = ["parquet: 2 of 8 samples failed", "humaneval: of another", "of the server: x"]
    write_json(
        folder / "results.json", {**results, "schema": 1, "warnings": warnings, "tasks": [task]}
    )
    caveats = read_caveats(read_results(folder)["tasks"][0])
    texts = [caveat.text for caveat in caveats]
    assert "earlier version" in texts[0] and "2 of 8 samples failed" in texts
    assert "of the server: x" in texts
    assert mark_name("parquet", caveats) == "parquet@unrecorded@first16@upper-bound"
    for output in OUTPUTS.values():
        assert "ONLY THE FIRST 16 OF 164" in output(folder)
    row = {"step": 1, "tasks": {"parquet": {"pass@1": None}}, "warnings": ["parquet: old"]}
    marked = add_row_caveats(row)
    assert [one.text for one in read_caveats(marked["tasks"]["parquet"])][1:] == ["old"]
    assert add_row_caveats(marked) == marked


def test_a_kind_of_a_later_version_is_kept_and_bars():
    [caveat] = read_caveats({"caveats": [{"kind": "later", "text": TEXT, "label": "l"}]})
    assert caveat.bars and (caveat.text, mark_name("t", [caveat])) == (TEXT, "t@l")


def test_a_step_of_its_own_is_named_below_the_checkpoints(with_caveats):
    plain = make_row(with_caveats(), step=2)
    other = make_row(with_caveats(Caveat("incomplete", TEXT), name="other"), step=4)
    shown = show(print_checkpoints, [plain, other])
    assert f"parquet (step 4): {TEXT}" in shown and "parquet@incomplete" in shown
    # Scores of another name are not compared.
    assert shown.count(" *") == 3
