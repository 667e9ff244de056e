"""Fixture of all tests of evaluations."""

import os
from unittest import mock

import pytest


@pytest.fixture(autouse=True)
def own_environment():
    """Undo what an engine sets for its process, e.g. verl's platform: other tests share it here."""
    with mock.patch.dict(os.environ):
        yield
