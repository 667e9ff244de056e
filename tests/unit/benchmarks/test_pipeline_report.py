"""The pipeline benchmark's arithmetic, on runs whose answer is known by hand."""

import pytest

from benchmarks.modes import MODES, Mode
from benchmarks.pipeline_report import BASELINE, rows, summarise, write_plot
from benchmarks.workload import TINY_WORKLOADS, WORKLOADS, Workload

WORKLOAD = Workload("even", ((2, 2), (2, 2)), reward_waits=False)
MODE = Mode("ours", "module", (), 2, None)


def run(step_s: float, sampling_s: float, batches: int, version=lambda batch: (batch - 2, batch - 2)) -> dict:
    """A run whose step k ends at 100 + k * step_s, and whose batch k is sampled from then on."""
    spans: list[dict] = []
    for batch in range(1, batches + 1):
        end = 100 + batch * step_s
        spans.append({"name": "step ends", "start": end - 0.25, "seconds": 0.25})
        for row in (2 * batch - 2, 2 * batch - 1):
            generated = {"name": "generate", "start": end, "seconds": sampling_s - 1, "row": row}
            spans.append({**generated, "tokens": 2, "asked": 2, "versions": list(version(batch))})
            spans.append({"name": "reward", "start": end + sampling_s - 1, "seconds": 1.0, "row": row})
    timing = {
        "gen": 0.5,
        "wait_rollout": 1.5,
        "update_weights": 1.0,
        "old_log_prob": 0.25,
        "adv": 0.25,
        "update_actor": 6,
    }
    metrics = {step: {f"timing_s/{name}": value for name, value in timing.items()} for step in range(1, batches + 1)}
    return {"start": 90.0, "spans": spans, "metrics": metrics}


def test_a_run_is_taken_apart():
    found = summarise(MODE, 0, run(10.0, 4.0, 5), (WORKLOAD,), 5)
    assert found["startup_s"] == 20.0
    assert [step["step"] for step in found["steps"]] == [2, 3, 4]
    step = found["steps"][0]
    assert step["seconds"] == 10.0 and sum(step["phases"].values()) == pytest.approx(10.0)
    assert step["phases"]["wait"] == 2.0 and step["phases"]["other"] == pytest.approx(0.5)
    assert step["sampling_s"] == 4.0 and step["generating_s"] == 3.0 and step["tokens"] == 4


def test_gain_overhead_and_versions_of_a_mode():
    baseline = Mode(BASELINE, "module", (), 1, 0.05)
    report = {
        "workloads": [{"name": "even", "tokens": 8}],
        "runs": [
            summarise(baseline, 0, run(20.0, 4.0, 6), (WORKLOAD,), 6),
            summarise(MODE, 0, run(10.0, 4.0, 6, version=lambda batch: (batch - 3, batch - 2)), (WORKLOAD,), 6),
        ],
    }
    slow, fast = rows(report, "even")
    assert slow["gain"] == pytest.approx(1.0) and fast["gain"] == pytest.approx(2.0)
    # 10 s less training (6.5 s, which is more than sampling) and the weight sync (1 s).
    assert fast["overhead"] == pytest.approx(0.25)
    assert slow["mixed versions"] == 0.0 and fast["mixed versions"] == 1.0
    assert slow["oldest version"] == 1 and fast["oldest version"] == 2
    assert fast["tokens/s"] == pytest.approx(0.4)


def test_the_plot_is_svg_and_names_every_mode(tmp_path):
    import xml.etree.ElementTree

    report = {
        "workloads": [{"name": "even", "tokens": 8}],
        "runs": [summarise(MODE, 0, run(10.0, 4.0, 5), (WORKLOAD,), 5)],
    }
    write_plot(report, tmp_path / "plot.svg")
    texts = [element.text for element in xml.etree.ElementTree.parse(tmp_path / "plot.svg").iter()]
    assert "ours" in texts and "10.0 s" in texts


@pytest.mark.parametrize("workloads", [WORKLOADS, TINY_WORKLOADS])
def test_the_workloads_fit_one_configuration(workloads):
    shapes = {tuple(len(lengths) for lengths in workload.lengths) for workload in workloads}
    assert len(shapes) == 1
    even, tail = workloads
    assert tail.longest > 1.5 * even.longest


def test_the_baseline_is_a_mode_and_names_are_unique():
    names = [mode.name for mode in MODES]
    assert BASELINE in names and len(set(names)) == len(names)
