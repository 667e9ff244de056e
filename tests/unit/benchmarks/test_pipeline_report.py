"""The pipeline benchmark's arithmetic, on runs whose answer is known by hand."""

import pytest
from rich.console import Console

from benchmarks.common import write_report
from benchmarks.modes import MODES, Mode
from benchmarks.pipeline import measured_before
from benchmarks.pipeline_report import (
    BASELINE,
    OURS,
    WARM_UP,
    markdown,
    rows,
    summarise,
    write_plot,
)
from benchmarks.workload import TINY_WORKLOADS, WORKLOADS, Workload

WORKLOAD = Workload("even", ((2, 2), (2, 2)))
MODE = Mode(OURS, "module", (), 2, None, ahead=1)
SERIAL = Mode(BASELINE, "module", (), 1, 0.05, ahead=0)
BATCHES = 5


def run(step_s: float, sampling_s: float, version=lambda batch: (batch - 2, batch - 2)) -> dict:
    """Step k ends at 100 + k * step_s; batch k is sampled in sampling_s + k / 100 seconds."""
    spans: list[dict] = []
    for batch in range(1, WARM_UP + BATCHES + 1):
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
    timing = {
        "gen": 0.5,
        "wait_rollout": 1.5,
        "update_weights": 1.0,
        "old_log_prob": 0.25,
        "adv": 0.25,
        "update_actor": 6,
    }
    metrics = {f"timing_s/{name}": value for name, value in timing.items()} | {
        "response_length/mean": 2.0
    }
    return {
        "start": 90.0,
        "spans": spans,
        "metrics": dict.fromkeys(range(1, WARM_UP + BATCHES + 1), metrics),
    }


def summary(mode: Mode, *arguments, repeat: int = 0, **version) -> dict:
    return summarise(mode, repeat, run(*arguments, **version), (WORKLOAD,), BATCHES)


def test_a_run_is_taken_apart():
    found = summary(MODE, 10.0, 4.0)
    assert found["startup_s"] == 20.0
    # Step 1 is the warm-up batch, 2 the workload's first, 6 its last.
    assert [step["step"] for step in found["steps"]] == [3, 4, 5]
    step = found["steps"][0]
    assert step["seconds"] == pytest.approx(10.0) and sum(step["phases"].values()) == pytest.approx(
        10.0
    )
    assert step["stolen_s"] == pytest.approx(0.5)
    assert step["phases"]["wait"] == 2.0 and step["phases"]["other"] == pytest.approx(0.5)


def test_a_pipelined_step_is_compared_with_the_sampling_beside_it():
    assert summary(MODE, 10.0, 4.0)["steps"][0]["sampling_s"] == pytest.approx(4.04)
    assert summary(SERIAL, 10.0, 4.0)["steps"][0]["sampling_s"] == pytest.approx(4.03)


def lose_a_trajectory(found: dict) -> None:
    place = next(
        i
        for i, span in enumerate(found["spans"])
        if span["name"] == "generate" and span["row"] == 6
    )
    del found["spans"][place]


def train_less(found: dict) -> None:
    found["metrics"][4] = found["metrics"][4] | {"response_length/mean": 1.5}


@pytest.mark.parametrize("plant", [lose_a_trajectory, train_less])
def test_other_work_is_an_error(plant):
    found = run(10.0, 4.0)
    plant(found)
    with pytest.raises(RuntimeError, match="step 4: .*; even has 8"):
        summarise(MODE, 0, found, (WORKLOAD,), BATCHES)


def test_gain_overhead_and_versions_of_a_mode():
    mixed = summary(MODE, 10.0, 4.0, version=lambda batch: (batch - 3, batch - 2))
    repeats = [
        summary(SERIAL, 20.0, 4.0),
        summary(SERIAL, 22.0, 4.0, repeat=1),
        mixed,
        summary(MODE, 10.0, 4.0, repeat=1),
    ]
    slow, fast = rows({"runs": repeats}, "even")
    assert slow["gain"] == fast["times ours"] == {"ratio": 1.0, "low": None, "high": None}
    gain = fast["gain"]
    assert (
        gain["ratio"] == pytest.approx((2.0 * 2.2) ** 0.5)
        and gain["low"] < gain["ratio"] < gain["high"]
    )
    assert slow["times ours"] == gain
    # 10 s less training (6.5 s, which is more than sampling) and the weight sync (1 s).
    assert fast["overhead"] == pytest.approx(0.25)
    # 21 s less training, sampling (4.04 s) and the weight sync.
    assert slow["overhead"] == pytest.approx((21 - 6.5 - 4.04 - 1) / 21)
    assert slow["mixed versions"] == 0.0 and fast["mixed versions"] == 0.5
    assert slow["oldest version"] == 1 and fast["oldest version"] == 2
    assert fast["tokens/s"] == pytest.approx(0.8)


def test_a_wait_belongs_to_the_cycle_of_the_step_before():
    """A step that ends early leaves its successor waiting for the same sampling: nothing is lost by
    that.
    """
    run = summary(MODE, 10.0, 4.0)
    first, second, _third = run["steps"]
    first["seconds"] -= 1
    second["seconds"] += 1
    second["phases"]["wait"] += 1
    (row,) = rows({"runs": [run]}, "even")
    assert row["overhead"] == pytest.approx(0.25)
    first["sampling_s"] = 11.0  # the batch was sampled over more than this cycle of 10 s
    assert rows({"runs": [run]}, "even")[0]["overhead"] is None
    run["steps"] = [first]
    assert rows({"runs": [run]}, "even")[0]["overhead"] is None


def test_the_plot_is_svg_and_names_every_mode(tmp_path):
    import xml.etree.ElementTree

    report = {"workloads": [{"name": "even", "tokens": 8}], "runs": [summary(MODE, 10.0, 4.0)]}
    write_plot(report, tmp_path / "plot.svg")
    texts = [element.text for element in xml.etree.ElementTree.parse(tmp_path / "plot.svg").iter()]
    assert OURS in texts and "10.0 s" in texts


def test_the_table_has_a_line_for_every_mode():
    runs = [summary(SERIAL, 20.0, 4.0), summary(MODE, 10.0, 4.0)]
    lines = markdown({"workloads": [{"name": "even", "tokens": 8}], "runs": runs}).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert lines[-1].startswith(
        f"| {OURS} | 10.0 (10.0 to 10.0) | 2.00 [2.00, 2.00] | 1.00 | 0.8 |"
    )


def test_results_of_other_code_are_moved_aside_and_those_of_this_code_continued(
    tmp_path, monkeypatch
):
    path, console = tmp_path / "pipeline.json", Console(quiet=True)
    arguments, workloads = {"quick": False}, [WORKLOAD.describe()]
    write_report(path, "pipeline", arguments, {"workloads": workloads, "runs": [{"mode": "ours"}]})
    assert measured_before(path, arguments, workloads, console) == [{"mode": "ours"}]
    monkeypatch.setattr("benchmarks.pipeline.versions", lambda: {"commit": "another"})
    assert measured_before(path, arguments, workloads, console) == []
    assert not path.exists() and len(list(tmp_path.glob("pipeline-*.json"))) == 1


@pytest.mark.parametrize("workloads", [WORKLOADS, TINY_WORKLOADS])
def test_the_workloads_fit_one_configuration(workloads):
    shapes = {tuple(len(lengths) for lengths in workload.lengths) for workload in workloads}
    assert len(shapes) == 1
    even, tail = workloads
    assert tail.longest > 1.5 * even.longest


def test_the_baseline_is_a_mode_and_names_are_unique():
    names = [mode.name for mode in MODES]
    assert BASELINE in names and len(set(names)) == len(names)
