"""What holds for the bills of any run, made up or real."""

from pathlib import Path

from verl_pipeline.telemetry.accounting import Bill, bill_run, bill_steps
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run, load_run
from verl_pipeline.telemetry.states import CAUSES, OWN_WORK, STATES


def check_bills(run: Run | Path) -> None:
    """Every second of each pool has one name, and every one without work one cause."""
    loaded = load_run(run) if isinstance(run, Path) else run
    whole = bill_run(loaded)
    assert [bill.pool for bill in whole] == list(Pool)
    for bill in [*whole, *bill_steps(loaded)]:
        check_bill(bill)


def check_bill(bill: Bill) -> None:
    """In whole microseconds, in which the accounting counts."""
    length = round((bill.end - bill.start) * 1e6)
    assert list(bill.seconds) == list(STATES[bill.pool])
    assert all(seconds >= 0 for seconds in bill.seconds.values())
    assert sum(round(seconds * 1e6) for seconds in bill.seconds.values()) == length
    own = OWN_WORK.get(bill.pool)
    if own is None:
        assert bill.causes == {}
        return
    lost = length - sum(round(bill.seconds[name] * 1e6) for name in own)
    assert bill.causes.keys() <= CAUSES.keys()
    assert sum(round(seconds * 1e6) for seconds in bill.causes.values()) == lost
