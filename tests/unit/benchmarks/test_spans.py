"""Timed functions behave as before, in a process that asked for spans; and verl still has what is
timed.
"""

import asyncio
import importlib
import inspect
from pathlib import Path

import pytest

from benchmarks import spans


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(spans.PATH, str(tmp_path / "spans.jsonl"))
    return tmp_path / "spans.jsonl"


def test_functions_coroutines_and_iterators_are_timed_and_unchanged(path):
    def fails():
        raise ValueError("as before")

    async def answers():
        return 42

    with pytest.raises(ValueError, match="as before"):
        spans._timed("function", fails)()
    assert asyncio.run(spans._timed("coroutine", answers)()) == 42
    items, extra = spans._timed_iterator("iterator", lambda: (iter("abc"), "extra"))()
    assert list(items) == list("abc") and extra == "extra"
    assert [span["name"] for span in spans.read(path)] == ["function", "coroutine", "iterator"]


def test_details_are_kept_and_no_file_is_no_spans(path):
    assert spans.read(path) == []
    spans.write("generate", 1.0, 2.0, row=3)
    assert spans.read(path)[0]["row"] == 3


@pytest.mark.parametrize("target", [*spans.FUNCTIONS.values(), *spans.ITERATORS.values()], ids=str)
def test_what_is_timed_exists(target):
    """By source: importing vLLM's and verl's engines here would need a platform."""
    module, attribute = target
    spec = importlib.machinery.PathFinder.find_spec(module.split(".")[0])
    assert spec is not None and spec.submodule_search_locations
    source = (
        Path(spec.submodule_search_locations[0])
        .joinpath(*module.split(".")[1:])
        .with_suffix(".py")
        .read_text()
    )
    for part in attribute.split("."):
        assert f"def {part}(" in source or f"class {part}" in source, part


def test_verls_buffer_still_has_a_poll_interval():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert "poll_interval" in inspect.signature(ReplayBuffer.__init__).parameters
