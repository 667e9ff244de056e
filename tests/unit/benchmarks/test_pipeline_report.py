"""The pipeline benchmark's steps, ratios, tables and plot, on runs computed by hand."""

import dataclasses
import json
import re
import xml.etree.ElementTree

import pytest
from rich.console import Console

from benchmarks.common import write_report
from benchmarks.modes import MODES, TrainerMode
from benchmarks.pipeline import load_previous_runs
from benchmarks.pipeline_plot import write_plot
from benchmarks.pipeline_report import BASELINE, OURS, make_markdown, make_rows
from benchmarks.pipeline_steps import WARM_UP_BATCHES, summarize_run
from benchmarks.workload import TINY_WORKLOADS, WORKLOADS, Workload
from tests.helpers.repository import ROOT

WORKLOAD = Workload("even", ((2, 2), (2, 2)))
MODE = TrainerMode(OURS, "module", (), 2, None, batches_ahead=1)
SERIAL = TrainerMode(BASELINE, "module", (), 1, 0.05, batches_ahead=0)
BATCHES = 5


def make_run(
    step_s: float, sampling_s: float, version=lambda batch: (batch - 2, batch - 2)
) -> dict:
    """Make a run whose step k ends at 100 + k * step_s.

    Batch k is sampled in sampling_s + k / 100 seconds.
    """
    spans: list[dict] = []
    for batch in range(1, WARM_UP_BATCHES + BATCHES + 1):
        end = 100 + batch * step_s
        spans.append(
            {"name": "step ends", "start": end - 0.25, "seconds": 0.25, "stolen": 7.0 + 0.5 * batch}
        )
        for row in (2 * batch - 2, 2 * batch - 1):
            generated = {"name": "generate", "start": end, "seconds": sampling_s - 1, "row": row}
            spans += [{**generated, "tokens": 2, "versions": list(version(batch))}] * 2
            spans.append(
                {
                    "name": "reward",
                    "start": end + sampling_s - 1,
                    "seconds": 1.0 + batch / 100,
                    "row": row,
                }
            )
    metrics = {
        "timing_s/gen": 0.25,
        "pipeline/timing_s/collect": 0.25,
        "pipeline/timing_s/wait_rollout": 1.5,
        "timing_s/update_weights": 1.0,
        "timing_s/old_log_prob": 0.25,
        "timing_s/adv": 0.25,
        "timing_s/update_actor": 6,
        "response_length/mean": 2.0,
    }
    return {
        "start": 90.0,
        "spans": spans,
        "metrics": dict.fromkeys(range(1, WARM_UP_BATCHES + BATCHES + 1), metrics),
    }


def summarize(mode: TrainerMode, *arguments, repeat: int = 0, **version) -> dict:
    return summarize_run(mode, repeat, make_run(*arguments, **version), (WORKLOAD,), BATCHES)


def test_a_run_is_split_into_steps_and_phases():
    found = summarize(MODE, 10.0, 4.0)
    assert found["startup_s"] == 20.0
    # Step 1 is the warm-up batch, 2 the workload's first, 6 its last.
    assert [step["step"] for step in found["steps"]] == [3, 4, 5]
    step = found["steps"][0]
    assert step["seconds"] == pytest.approx(10.0) and sum(step["phases"].values()) == pytest.approx(
        10.0
    )
    assert step["stolen_s"] == pytest.approx(0.5)
    assert step["phases"]["wait"] == 2.0 and step["phases"]["other"] == pytest.approx(0.5)


def test_a_pipelined_step_has_the_sampling_of_the_next_batch():
    assert summarize(MODE, 10.0, 4.0)["steps"][0]["sampling_s"] == pytest.approx(4.04)
    assert summarize(SERIAL, 10.0, 4.0)["steps"][0]["sampling_s"] == pytest.approx(4.03)


def lose_a_trajectory(found: dict) -> None:
    index = next(
        i
        for i, span in enumerate(found["spans"])
        if span["name"] == "generate" and span["row"] == 6
    )
    del found["spans"][index]


def train_fewer_tokens(found: dict) -> None:
    found["metrics"][4] = found["metrics"][4] | {"response_length/mean": 1.5}


@pytest.mark.parametrize("plant", [lose_a_trajectory, train_fewer_tokens])
def test_a_step_with_other_work_is_an_error(plant):
    found = make_run(10.0, 4.0)
    plant(found)
    with pytest.raises(RuntimeError, match="step 4: .*; even has 8"):
        summarize_run(MODE, 0, found, (WORKLOAD,), BATCHES)


def test_a_mode_that_moves_prompts_between_steps_has_the_tokens_that_it_trained():
    found = make_run(10.0, 4.0)
    train_fewer_tokens(found)
    mode = dataclasses.replace(MODE, keeps_batches=False)
    steps = summarize_run(mode, 0, found, (WORKLOAD,), BATCHES)["steps"]
    assert [step["tokens"] for step in steps] == [8, 6, 8]
    tables = []
    for run in (summarize(mode, 10.0, 4.0), summarize_run(mode, 0, found, (WORKLOAD,), BATCHES)):
        report = {"workloads": [{"name": "even", "tokens": 8}], "runs": [run]}
        tables.append(make_markdown(report))
    assert ["compare tokens/s only" in table for table in tables] == [False, True]


def test_gain_overhead_and_versions_of_a_mode():
    mixed = summarize(MODE, 10.0, 4.0, version=lambda batch: (batch - 3, batch - 2))
    repeats = [
        summarize(SERIAL, 20.0, 4.0),
        summarize(SERIAL, 22.0, 4.0, repeat=1),
        mixed,
        summarize(MODE, 10.0, 4.0, repeat=1),
    ]
    slow, fast = make_rows({"runs": repeats}, "even")
    assert slow["gain"] == fast["times ours"] == {"ratio": 1.0, "low": None, "high": None}
    gain = fast["gain"]
    assert (
        gain["ratio"] == pytest.approx((2.0 * 2.2) ** 0.5)
        and gain["low"] < gain["ratio"] < gain["high"]
    )
    assert slow["times ours"] == gain
    # 10 s minus training (6.5 s, longer than sampling) and weight sync (1 s).
    assert fast["overhead"] == pytest.approx(0.25)
    # 21 s minus training, sampling (4.04 s) and weight sync.
    assert slow["overhead"] == pytest.approx((21 - 6.5 - 4.04 - 1) / 21)
    assert slow["mixed versions"] == 0.0 and fast["mixed versions"] == 0.5
    assert slow["oldest version"] == 1 and fast["oldest version"] == 2
    assert fast["tokens/s"] == pytest.approx(0.8)


def test_a_wait_counts_in_the_cycle_of_the_previous_step():
    """If a step ends early, the next one waits for the same sampling: that is no overhead."""
    run = summarize(MODE, 10.0, 4.0)
    first, second, _third = run["steps"]
    first["seconds"] -= 1
    second["seconds"] += 1
    second["phases"]["wait"] += 1
    (row,) = make_rows({"runs": [run]}, "even")
    assert row["overhead"] == pytest.approx(0.25)
    first["sampling_s"] = 11.0  # longer than the cycle of 10 s
    assert make_rows({"runs": [run]}, "even")[0]["overhead"] is None
    run["steps"] = [first]
    assert make_rows({"runs": [run]}, "even")[0]["overhead"] is None


def list_texts(path):
    root = xml.etree.ElementTree.parse(path)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_plot_is_svg_and_names_every_mode(tmp_path):
    report = {"workloads": [{"name": "even", "tokens": 8}], "runs": [summarize(MODE, 10.0, 4.0)]}
    write_plot(report, tmp_path / "plot.svg")
    texts = list_texts(tmp_path / "plot.svg")
    assert {"even", OURS, "10.0 s", "weight sync", "sampling and rewards"} <= set(texts)
    before = (tmp_path / "plot.svg").read_bytes()
    write_plot(report, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == before


def test_the_table_has_a_row_per_mode():
    runs = [summarize(SERIAL, 20.0, 4.0), summarize(MODE, 10.0, 4.0)]
    lines = make_markdown({"workloads": [{"name": "even", "tokens": 8}], "runs": runs}).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert lines[-1].startswith(
        f"| {OURS} | 10.0 (10.0 to 10.0) | 2.00 [2.00, 2.00] | 1.00 | 0.8 |"
    )


def test_the_plot_shows_what_the_table_says(tmp_path):
    """Also where mean and median differ; in docs too."""
    stored = json.loads((ROOT / "benchmarks/results/pipeline.json").read_text())["results"]
    write_plot(stored, tmp_path / "plot.svg")
    texts = list_texts(tmp_path / "plot.svg")
    table = make_markdown(stored)
    steps = re.findall(r"^\| [^|]+ \| ([\d.]+) \(", table, re.MULTILINE)
    shown = [text.removesuffix(" s") for text in texts if re.fullmatch(r"[\d.]+ s", text)]
    assert len(steps) > 2 and shown == steps
    for workload in stored["workloads"]:
        for row in make_rows(stored, workload["name"]):
            phases = sum(row[name] for name in ("wait", "weight sync", "training", "other"))
            assert row["step s"] == pytest.approx(phases)
    assert table in (ROOT / "docs/benchmarks/trainer-modes-results.md").read_text()
    assert texts == list_texts(ROOT / "docs/pipeline.svg")


def test_results_of_other_code_are_moved_and_those_of_this_code_continued(tmp_path, monkeypatch):
    path, console = tmp_path / "pipeline.json", Console(quiet=True)
    arguments, workloads = {"quick": False}, [WORKLOAD.as_dict()]
    write_report(path, "pipeline", arguments, {"workloads": workloads, "runs": [{"mode": "ours"}]})
    assert load_previous_runs(path, arguments, workloads, console) == [{"mode": "ours"}]
    monkeypatch.setattr("benchmarks.pipeline.read_versions", lambda: {"commit": "another"})
    assert load_previous_runs(path, arguments, workloads, console) == []
    assert not path.exists() and len(list(tmp_path.glob("pipeline-*.json"))) == 1


@pytest.mark.parametrize("workloads", [WORKLOADS, TINY_WORKLOADS])
def test_both_workloads_have_one_shape(workloads):
    shapes = {tuple(len(lengths) for lengths in workload.lengths) for workload in workloads}
    assert len(shapes) == 1
    even, tail = workloads
    assert tail.max_length > 1.5 * even.max_length


def test_the_baseline_is_a_mode_and_names_are_unique():
    names = [mode.name for mode in MODES]
    assert BASELINE in names and len(set(names)) == len(names)
