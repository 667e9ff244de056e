"""What the viewer gets: each chunk reads back, and says the truth about its trajectories."""

import base64
import gzip
import json

import numpy as np
import pytest

from verl_pipeline.report import rollouts
from verl_pipeline.report.rollouts import pack_rollouts
from verl_pipeline.report.trajectory_rows import read_trajectory_rows
from verl_pipeline.telemetry.run_folder import load_run


def unpack(chunk):
    columns = json.loads(gzip.decompress(base64.b64decode(chunk.packed)))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def run(runs):
    return load_run(runs["ours"])


def test_all_trajectories_of_a_small_run_are_there(run):
    rows = read_trajectory_rows(run)
    packed = pack_rollouts(run, rows, run.headers[0].started)
    unpacked = [(chunk.step, row) for chunk in packed.chunks for row in unpack(chunk)]
    assert packed.notes == [] and len(unpacked) == len(rows)
    table = run.trajectories.to_pylist()
    for step, row in unpacked:
        source = table[row["id"]]
        assert (row["prompt"], row["session"]) == (source["prompt"], source["session"])
        assert step == (source["batch"] if source["step"] is None else source["step"])
        assert row["reward"] == source["reward"]
        assert row["reward_worker"] == source["reward_worker"]
        if source["first_token"] is not None:
            wait = source["first_token"] - source["started"]
            assert row["to_first_token"] == pytest.approx(wait, abs=0.01)
        assert row["response_tokens"] == source["response_tokens"]
        is_running = source["generated"] is None
        assert (row["fate"] == "running") == is_running or source["is_validation"]
    texts = {(text.prompt, text.session): text for text in run.read_texts()}
    with_text = [row for _, row in unpacked if row["text"]]
    assert len(with_text) == len(texts) > 0
    for row in with_text:
        text = texts[row["prompt"], row["session"]]
        assert row["text"]["response"] == text.response_text
        assert row["text"]["versions"] == text.token_versions


def test_of_a_large_step_texts_and_the_longest_are_kept_first(run, monkeypatch):
    monkeypatch.setattr(rollouts, "MAX_ROWS", 60)
    rows = read_trajectory_rows(run)
    packed = pack_rollouts(run, rows, 0.0)
    assert f"{len(packed.picked)} of {len(rows)} trajectories" in packed.notes[0]
    assert len(packed.picked) <= 60
    for chunk in packed.chunks:
        own = np.flatnonzero(rows.step == chunk.step) if chunk.step is not None else None
        if own is not None and len(own):
            assert own[rows.response_tokens[own].argmax()] in packed.picked
            assert sum(row["text"] is not None for row in unpack(chunk)) == 2


def test_texts_beyond_the_budget_are_withheld_not_lost(run, monkeypatch):
    monkeypatch.setattr(rollouts, "MAX_PACKED", 1_000)
    packed = pack_rollouts(run, read_trajectory_rows(run), 0.0)
    found = [row for chunk in packed.chunks for row in unpack(chunk)]
    assert any(row["withheld"] for row in found)
    assert not any(row["withheld"] and row["text"] for row in found)


def test_of_a_long_text_both_ends_are_kept():
    text = rollouts._shorten("a" * 20_000 + "z" * 20_000)
    assert text.startswith("aaa") and text.endswith("zzz") and "28,000 characters" in text
    assert rollouts._shorten("short") == "short"
