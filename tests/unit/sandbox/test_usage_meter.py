"""Idle time of a run, computed from what the kernel reports for its threads."""

import os

import pytest

from verl_pipeline.sandbox.inside import usage_meter

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class FakeKernel:
    """A ``/proc`` folder whose threads have given states and times."""

    def __init__(self, folder):
        self.folder = folder
        self.cpu_seconds = {}
        self.wait_seconds = {}

    def set_process(self, pid, computed=0.0, waits=(0.0,), states="S", reaped=0.0):
        """Add ``computed`` seconds, and ``waits`` and ``states`` of each of its threads."""
        self.cpu_seconds[pid] = self.cpu_seconds.get(pid, 0.0) + computed
        ticks = round(reaped * TICKS_PER_S)
        for number, (wait, state) in enumerate(zip(waits, states, strict=True)):
            task = self.folder / str(pid) / "task" / str(pid + number)
            task.mkdir(parents=True, exist_ok=True)
            waited = self.wait_seconds.get((pid, number), 0.0) + wait
            self.wait_seconds[pid, number] = waited
            (task / "schedstat").write_text(f"1000 {round(waited * 1e9)} 7\n")
            (task / "statm").write_text("9 5 3 1 0 4 0\n")
            stat = f"{pid} (a b) c) {state} " + "0 " * 12 + f"{ticks} 0 20 0\n"
            (task / "stat").write_text(stat)
            if not number:
                (self.folder / str(pid) / "stat").write_text(stat)

    def end_process(self, pid):
        del self.cpu_seconds[pid]

    def measure(self, meter, now):
        meter.measure_processes(list(self.cpu_seconds), now)
        return meter


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    fake = FakeKernel(tmp_path)
    monkeypatch.setattr(usage_meter, "_PROC", str(tmp_path))
    monkeypatch.setattr(usage_meter, "_read_cpu_seconds", lambda pid: fake.cpu_seconds[pid])
    return fake


@pytest.fixture
def meter(kernel):
    """A meter that has seen the processes 100 and 200 at time 0."""
    for pid in (100, 200):
        kernel.set_process(pid)
    return kernel.measure(usage_meter.UsageMeter(0.0), 0.0)


def test_a_run_that_computes_or_waits_is_not_idle(kernel, meter):
    kernel.set_process(100, computed=0.6, waits=[0.4], states="R")
    kernel.measure(meter, 1.0)
    assert (meter.cpu_s, meter.wall_s) == (0.6, 1.0)
    assert meter.idle_s == meter.surely_idle_s == pytest.approx(0.0)


def test_waiting_does_not_hide_idle_time_of_another_interval(kernel, meter):
    kernel.set_process(100, waits=[5.0])
    idle_s = kernel.measure(meter, 1.0).idle_s
    assert kernel.measure(meter, 2.0).idle_s - idle_s == 1.0


def test_threads_that_waited_at_once_hide_only_the_longest_wait(kernel, meter):
    kernel.set_process(100, waits=[0.02] * 61, states="S" * 61)
    kernel.measure(meter, 1.0)
    assert meter.idle_s == meter.surely_idle_s == pytest.approx(0.98)


def test_processes_that_take_turns_to_wait_are_not_idle(kernel, meter):
    """A pipeline on a busy machine: one of two is always runnable."""
    for second in range(1, 11):
        states = "RS" if second % 2 else "SR"
        for pid, state in zip((100, 200), states, strict=True):
            kernel.set_process(pid, computed=0.1, waits=[0.4], states=state)
        kernel.measure(meter, float(second))
    assert meter.idle_s == pytest.approx(0.0)


def test_threads_that_run_during_the_second_look_are_not_quiet(kernel, meter, monkeypatch):
    """Each is asleep when it is looked at, because the other runs."""
    for pid in (100, 200):
        kernel.set_process(pid, waits=[0.5])
    seconds = iter([0.0, 0.0, 0.001, 0.001])
    monkeypatch.setattr(usage_meter, "_read_cpu_seconds", lambda _pid: next(seconds))
    assert kernel.measure(meter, 1.0).idle_s == pytest.approx(0.0)


def test_a_parent_that_sleeps_is_idle_beside_children_that_queue_now_and_then(kernel, meter):
    for second in range(1, 11):
        state = "R" if second == 5 else "S"
        kernel.set_process(200, computed=0.01, waits=[0.1] * 20, states=state * 20)
        kernel.measure(meter, float(second))
    assert meter.idle_s == pytest.approx(9 * 0.89)


def test_unseen_processes_may_have_waited(kernel, meter):
    """Short processes, one after another, on a busy machine: the waits of most are never read."""
    for second in range(1, 11):
        pid = 300 + second
        kernel.set_process(pid, computed=0.001, waits=[0.002], states="R")
        kernel.measure(meter, float(second))
        kernel.end_process(pid)
    assert meter.idle_s == pytest.approx(0.0)
    kernel.measure(meter, 11.0)
    assert kernel.measure(meter, 12.0).idle_s == pytest.approx(2.0)


def test_cpu_time_of_unseen_processes_is_learnt_from_their_parent(kernel, meter):
    kernel.set_process(100, reaped=3.0)
    kernel.measure(meter, 10.0)
    assert meter.cpu_s == pytest.approx(3.0) and meter.idle_s == pytest.approx(7.0)
    kernel.set_process(200, computed=2.0, reaped=0.0)
    assert kernel.measure(meter, 20.0).cpu_s == pytest.approx(5.0)
    kernel.end_process(200)
    kernel.set_process(100, reaped=5.0)  # its parent has waited for it
    assert kernel.measure(meter, 30.0).cpu_s == pytest.approx(5.0)


def test_only_the_runs_own_turns_count(kernel):
    turns = {0.0: 0.0, 10.0: 0.0, 20.0: 4.0}
    meter = usage_meter.UsageMeter(0.0, turns.__getitem__)
    kernel.set_process(100)
    for now in turns:
        kernel.measure(meter, now)
    assert meter.idle_s == meter.wall_s == 4.0
