"""A header for runs that never ran."""

import pytest

from verl_pipeline.telemetry.records import Header


@pytest.fixture
def made_header():
    return Header(
        format=1,
        role="",
        host="",
        pid=0,
        started=0.0,
        run_name="tests",
        mode="sync",
        staleness=None,
        trainer_devices=1,
        rollout_devices=1,
        shares_devices=True,
        replicas=1,
        slots=4,
        group_size=2,
        batch_size=2,
        first_step=1,
        last_step=3,
    )
