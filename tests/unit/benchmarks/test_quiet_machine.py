import subprocess
import sys

import pytest

from benchmarks import quiet_machine
from benchmarks.quiet_machine import MachineTooBusy, wait_until_quiet

BUSY_LOOP = "while True: pass"


@pytest.mark.medium
def test_a_busy_machine_is_too_busy_to_tell(monkeypatch):
    # Two loops keep at least two processors busy, whatever the machine's other load.
    monkeypatch.setattr(quiet_machine, "QUIET_PERCENT", 1.0)
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(2)]
    try:
        with pytest.raises(MachineTooBusy, match=r"too busy to tell: .* \d+ python") as raised:
            wait_until_quiet(timeout_s=0.5)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert raised.value.exit_code == 1


def test_a_measurement_waits_for_some_quiet_seconds(monkeypatch):
    shares = iter([90.0, 10.0, 10.0, 80.0, 10.0, 10.0, 10.0, 99.0])
    monkeypatch.setattr(quiet_machine.psutil, "cpu_percent", lambda _seconds: next(shares))
    wait_until_quiet()
    assert list(shares) == [99.0]
