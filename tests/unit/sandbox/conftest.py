"""The real sandbox in each tier, with one worker for each module of tests."""

import os

import pytest

from verl_pipeline.sandbox import Sandbox

NOT_AS_ROOT = pytest.mark.skipif(
    os.getuid() == 0, reason="refused to root; see integration/test_ordinary_user.py"
)


@pytest.fixture(scope="module", params=["namespaces", pytest.param("rlimits", marks=NOT_AS_ROOT)])
def sandbox(request):
    with Sandbox(1, request.param) as one_worker:
        yield one_worker
