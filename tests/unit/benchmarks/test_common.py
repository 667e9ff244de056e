"""Statistics against hand-computed values, and atomic reports."""

import json
import math

import pytest

from benchmarks import common


def test_a_paired_ratio_cancels_the_machines_speed():
    # The factor is about 2 in each pair, although the machine's speed changes between pairs.
    slow, fast = [10.0, 20.0, 40.0], [20.2, 39.6, 80.0]
    paired = common.estimate_ratio(fast, slow, paired=True)
    unpaired = common.estimate_ratio(fast, slow)
    assert paired["ratio"] == pytest.approx(2.0, rel=1e-3) == unpaired["ratio"]
    assert 1.9 < paired["low"] < 2.0 < paired["high"] < 2.1
    assert unpaired["low"] < 1.0 and unpaired["high"] > 4.0


def test_interval_of_a_known_sample():
    # Logarithms 0, 1, 2 against 0: mean 1, standard error 1/sqrt(3); Student's t with 2 degrees of
    # freedom is 4.3027.
    found = common.estimate_ratio([1.0, math.e, math.e**2], [1.0, 1.0, 1.0], paired=True)
    assert math.log(found["high"]) == pytest.approx(1 + 4.3027 / math.sqrt(3), abs=1e-3)
    # Welch's degrees of freedom are the same, since the second side has no spread.
    assert common.estimate_ratio([1.0, math.e, math.e**2], [1.0, 1.0, 1.0]) == pytest.approx(found)


def test_a_single_repeat_has_no_interval():
    assert common.estimate_ratio([3.0], [2.0]) == {
        "ratio": pytest.approx(1.5),
        "low": None,
        "high": None,
    }
    with pytest.raises(ValueError):
        common.estimate_ratio([1.0, 2.0], [1.0], paired=True)


def test_spread_of_a_known_sample():
    assert common.summarize_spread([4.0, 1.0, 3.0, 2.0]) == {
        "median": 2.5,
        "min": 1.0,
        "max": 4.0,
        "q1": 1.75,
        "q3": 3.25,
        "n": 4,
    }
    assert common.summarize_spread([7.0])["q1"] == 7.0


def test_a_report_has_machine_and_versions(tmp_path):
    path = tmp_path / "new" / "report.json"
    common.write_report(path, "name", {"folder": tmp_path}, [{"value": 1.5}])
    report = json.loads(path.read_text())
    assert list(report) == ["benchmark", "started", "arguments", "machine", "versions", "results"]
    assert report["results"] == [{"value": 1.5}] and report["machine"]["cores"] >= 1
    assert report["versions"]["verl"]


def test_a_failed_write_keeps_the_old_report(tmp_path):
    path = tmp_path / "report.json"
    common.write_report(path, "name", {}, 1)
    before = path.read_text()
    with pytest.raises(ValueError):
        common.write_report(path, "name", {}, float("nan"))
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_a_table_marks_missing_values(capsys):
    common.print_table([{"case": "base", "rate": 12345.6}, {"case": "other"}], ["case", "rate"])
    shown = capsys.readouterr().out
    assert "12,346" in shown and "-" in shown
