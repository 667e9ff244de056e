"""Timed functions behave as before, and the functions to time exist."""

import asyncio
import importlib
import inspect
import re
from pathlib import Path

import pytest

from benchmarks import recording_time, spans


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(spans.SPANS_VARIABLE, str(tmp_path / "spans.jsonl"))
    return tmp_path / "spans.jsonl"


def test_functions_coroutines_and_iterators_are_timed_and_unchanged(path):
    def fails():
        raise ValueError("as before")

    async def answers():
        return 42

    with pytest.raises(ValueError, match="as before"):
        spans._time_function("function", fails)()
    assert asyncio.run(spans._time_function("coroutine", answers)()) == 42
    items, extra = spans._time_iterator("iterator", lambda: (iter("abc"), "extra"))()
    assert list(items) == list("abc") and extra == "extra"
    assert [span["name"] for span in spans.read_spans(path)] == [
        "function",
        "coroutine",
        "iterator",
    ]


def test_spans_have_details_and_a_missing_file_has_no_spans(path):
    assert spans.read_spans(path) == []
    spans.write_span("generate", 1.0, 2.0, row=3)
    assert spans.read_spans(path)[0]["row"] == 3


@pytest.mark.parametrize(
    "target",
    [*spans.FUNCTIONS.values(), *spans.ITERATORS.values(), *recording_time.PARTS.values()],
    ids=str,
)
def test_every_timed_function_exists(target):
    """The sources are searched, since importing the engines would need a platform."""
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
        assert re.search(rf"(def|class|import[^=]*?) ?\b{part}\b", source), part


def test_verls_buffer_still_has_a_poll_interval():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert "poll_interval" in inspect.signature(ReplayBuffer.__init__).parameters
