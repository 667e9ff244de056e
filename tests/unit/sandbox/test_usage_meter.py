"""Idle time of a run, computed from the times that the kernel reports for its threads."""

import pytest

from verl_pipeline.sandbox.inside import usage_meter


@pytest.fixture
def measure(monkeypatch):
    """A function that measures given seconds of (computing, waiting) for threads of a process.

    The seconds are those since the last measurement.
    """

    def measure_increases(meter, now, *increases):
        sums = iter(([sum(cpu for cpu, _wait in increases)], [wait for _cpu, wait in increases]))
        monkeypatch.setattr(usage_meter, "_compute_increases", lambda _now, _before: next(sums))
        meter.measure_processes([], now)
        return meter

    return measure_increases


def test_a_run_that_computes_or_waits_is_not_idle(measure):
    meter = measure(usage_meter.UsageMeter(0.0), 1.0, (0.6, 0.4))
    assert (meter.cpu_s, meter.wall_s) == (0.6, 1.0)
    assert meter.idle_s == meter.surely_idle_s == pytest.approx(0.0)


def test_waiting_does_not_hide_idle_time_of_another_interval(measure):
    meter = measure(usage_meter.UsageMeter(0.0), 1.0, (0.0, 5.0))
    assert measure(meter, 2.0, (0.0, 0.0)).idle_s == 1.0


def test_many_threads_that_wait_briefly_at_once_are_surely_idle(measure):
    meter = measure(usage_meter.UsageMeter(0.0), 1.0, *[(0.0, 0.02)] * 61)
    assert meter.idle_s == 0.0 and meter.surely_idle_s == pytest.approx(0.98)
