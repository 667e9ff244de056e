"""The real sandbox, with one worker for each module of tests."""

import pytest

from verl_pipeline.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as one_worker:
        yield one_worker
