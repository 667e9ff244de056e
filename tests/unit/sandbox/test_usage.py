"""How long a run was idle, from what the kernel says of its threads."""

import pytest

from verl_pipeline.sandbox.inside import usage


@pytest.fixture
def looked(monkeypatch):
    """Looks with given seconds of (computing, waiting) for each thread of one process since the
    look before.
    """

    def look(meter, now, *increases):
        sums = iter(([sum(cpu for cpu, _wait in increases)], [wait for _cpu, wait in increases]))
        monkeypatch.setattr(usage, "_increases", lambda _now, _before: next(sums))
        meter.look([], now)
        return meter

    return look


def test_a_run_that_computes_or_waits_is_not_idle(looked):
    meter = looked(usage.Meter(0.0), 1.0, (0.6, 0.4))
    assert (meter.cpu_s, meter.wall_s) == (0.6, 1.0)
    assert meter.idle_s == meter.surely_idle_s == pytest.approx(0.0)


def test_waiting_makes_up_for_no_sleep_of_another_look(looked):
    meter = looked(usage.Meter(0.0), 1.0, (0.0, 5.0))
    assert looked(meter, 2.0, (0.0, 0.0)).idle_s == 1.0


def test_many_that_wait_a_little_at_once_are_surely_idle(looked):
    meter = looked(usage.Meter(0.0), 1.0, *[(0.0, 0.02)] * 61)
    assert meter.idle_s == 0.0 and meter.surely_idle_s == pytest.approx(0.98)
