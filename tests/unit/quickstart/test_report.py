"""The quickstart's statistics and tables."""

import json
import math
import random
import statistics

from rich.console import Console

from verl_pipeline.quickstart.report import (
    T_95,
    accuracy_table,
    clustered_mean,
    paired_difference,
    pool_table,
    read_scores,
)


def text(table):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


def test_the_interval_by_hand():
    mean, half = clustered_mean({"a": [1, 1], "b": [0, 0], "c": [1, 0]})
    assert mean == 0.5
    assert math.isclose(half, T_95 * 0.5 / math.sqrt(3))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """43 problems with pass rates of their own, 8 samples each; the samples of a problem are not independent."""
    rng = random.Random(0)
    covered = 0
    for _ in range(400):
        rates = [rng.betavariate(0.5, 1.5) for _ in range(43)]
        mean, half = clustered_mean({str(i): [float(rng.random() < p) for _ in range(8)] for i, p in enumerate(rates)})
        covered += abs(mean - 0.25) <= half
    assert 0.91 <= covered / 400 <= 0.98


def test_the_paired_gain_is_narrower_than_the_difference_of_two():
    rng = random.Random(1)
    rates = [rng.random() for _ in range(40)]
    before = {str(i): [float(rng.random() < p) for _ in range(8)] for i, p in enumerate(rates)}
    after = {str(i): [float(rng.random() < min(p + 0.2, 1)) for _ in range(8)] for i, p in enumerate(rates)}
    gain, half = paired_difference(before, after)
    difference = statistics.fmean([clustered_mean(after)[0] - clustered_mean(before)[0]])
    assert math.isclose(gain, difference)
    assert half < math.hypot(clustered_mean(before)[1], clustered_mean(after)[1])


def test_the_tables_say_how_many_samples_and_add_up(tmp_path):
    for step, score in ((0, 0.0), (5, 1.0)):
        rows = [{"input": f"p{i}", "score": score if i else 0.5} for i in range(3) for _ in range(8)]
        (tmp_path / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_scores(tmp_path / "0.jsonl") == {"p0": [0.5] * 8, "p1": [0.0] * 8, "p2": [0.0] * 8}
    shown = text(accuracy_table(tmp_path, 5))
    assert "24" in shown and "0.167" in shown and "+0.667" in shown
    metrics = {
        step: {
            "timing_s/step": 10.0,
            "timing_s/wait_rollout": 2.0,
            "timing_s/update_weights": 1.0,
            "timing_s/update_actor": 6.0,
            "pipeline/rollout/generating_s": 4.0,
        }
        for step in (1, 2, 3, 4)
    }
    metrics[1]["pipeline/rollout/generating_s"] = metrics[2]["pipeline/rollout/generating_s"] = 9.0  # in steps 0 and 1
    shown = text(pool_table({0: {}, **metrics}))
    assert "2 steps, median 10.0 s" in shown
    for share in ("20%", "10%", "60%", "40%", "50%"):
        assert share in shown
