"""The weight sync benchmark's table row, computed by hand."""

import pytest

from benchmarks.weight_sync import CASES, MODELS, make_table_row


def test_items_are_medians_per_replica_and_control_is_the_rest():
    sync = {
        "total": 2.0,
        "gather": 0.5,
        "network": 1.0,
        "load": 0.4,
        "repack": 0.6,
        "vLLM": 3.0,
        "bytes": 4e6,
    }
    slower = {**sync, "total": 4.0, "vLLM": 6.0}
    result = {
        "model": "135M",
        "ranks": 1,
        "replicas": 2,
        "bytes": 4_000_000,
        "copy_s": [0.1, 0.3, 0.2],
    }
    found = make_table_row({**result, "syncs": [sync, sync, slower]})
    assert found["total"] == 2.0 and found["max"] == 4.0
    assert (
        found["network"] == 0.5
        and found["load"] == 0.2
        and found["repack"] == 0.3
        and found["gather"] == 0.5
    )
    assert found["control"] == pytest.approx(0.5)
    assert found["MB/s"] == pytest.approx(2.0) and found["plain copy"] == 0.2


def test_every_case_has_a_model():
    assert {model for model, _ranks, _replicas in CASES} == set(MODELS)
