"""The store: whole lines, one owner, no sample drawn twice."""

import json

import pytest

from verl_pipeline.evaluation.recorded_files import DamagedFileError, read_records
from verl_pipeline.evaluation.store import (
    StoreError,
    TaskStore,
    claim_folder,
)


def make_sample(number: int, **fields):
    generation = {"response": "r\u2028é", "tokens": 1, "prompt_tokens": 1, "finish": "stop"}
    return {"id": "a", "sample": number, **generation, "mean_logprob": None, **fields}


def make_verdict(number: int, reward):
    rest = {"verdict": "x", "reason": "", "answer": None, "shown": None, "tier": "t"}
    return {"id": "a", "sample": number, "reward": reward, **rest}


def test_a_cut_off_line_is_removed_before_the_next_write(tmp_path):
    store = TaskStore(tmp_path)
    store.add_sample(make_sample(0))
    store.add_sample(make_sample(1))
    store.close()
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    again = TaskStore(tmp_path)
    assert list(again.samples) == [("a", 0)]
    again.add_sample(make_sample(1))
    again.close()
    assert [row["sample"] for row in read_records(path)] == [0, 1]
    assert next(read_records(path)) == make_sample(0)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [json.dumps(make_sample(number)) for number in (0, 1)]
    path.write_text(f'{rows[0]}\n{{"id": \n{rows[1]}\n')
    with pytest.raises(DamagedFileError, match=r"samples.jsonl:2: not valid.* remove the line"):
        TaskStore(tmp_path)


@pytest.mark.parametrize("end", [b"xxx", b"<html>", b"PK\x03\x04", b"[1"])
def test_an_end_that_begins_no_record_is_damage(tmp_path, end):
    path = tmp_path / "samples.jsonl"
    whole = json.dumps(make_sample(0)).encode() + b"\n"
    path.write_bytes(whole + end)
    with pytest.raises(DamagedFileError, match=r"samples.jsonl:2: not valid JSON"):
        list(read_records(path))
    for unfinished in (whole[:9], bytes(512)):
        path.write_bytes(whole + unfinished)
        assert list(read_records(path)) == [make_sample(0)]


def test_samples_without_a_reward_are_graded_again(tmp_path):
    store = TaskStore(tmp_path)
    for number, reward in enumerate([1.0, None]):
        store.add_sample(make_sample(number))
        store.add_verdict(make_verdict(number, reward))
    assert [row["sample"] for row in store.list_ungraded_samples()] == [1]
    store.close()
    again = TaskStore(tmp_path)
    assert [row["sample"] for row in again.list_ungraded_samples()] == [1]
    again.close()


@pytest.mark.parametrize("name", ["samples", "verdicts"])
def test_a_row_that_lacks_what_a_continued_evaluation_reads_is_named(tmp_path, name):
    whole = make_sample(0) if name == "samples" else make_verdict(0, 1.0)
    for field in whole:
        row = {key: value for key, value in whole.items() if key != field}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DamagedFileError, match=rf"{name}.jsonl:1: {field}: is missing"):
            TaskStore(tmp_path)


@pytest.mark.parametrize("line", ["5", "[1]", "\udcff"])
def test_a_line_that_is_not_an_object_is_named(tmp_path, line):
    (tmp_path / "samples.jsonl").write_bytes(f"{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(DamagedFileError, match="samples.jsonl:1: "):
        TaskStore(tmp_path)


def test_samples_of_another_model_are_refused_with_the_difference(tmp_path):
    path = tmp_path / "model.json"
    claim_folder(path, {"name": "m", "weights": "1"}, [tmp_path])
    claim_folder(
        path, {"name": "m", "weights": "2"}, [tmp_path]
    )  # allowed: there are no samples yet
    store = TaskStore(tmp_path)
    store.add_sample(make_sample(0))
    store.close()
    claim_folder(path, {"weights": "2", "name": "m"}, [tmp_path])
    with pytest.raises(StoreError, match=r"weights: 2 there, 3 now.*another output"):
        claim_folder(path, {"name": "m", "weights": "3"}, [tmp_path])
    assert json.loads(path.read_text())["weights"] == "2"
    # A hash is shortened, and left out if its cause is known.
    path.write_text(json.dumps({"data": "ab" * 32, "n": {"x": None, "y": [1]}}))
    with pytest.raises(
        StoreError, match=r"\(data: abababababab... \(hash\) there, cd.*; n.y: 1 there, none now\)"
    ):
        claim_folder(path, {"data": "cd" * 32, "n": {"x": None, "y": []}}, [tmp_path])
    path.write_text(json.dumps({"data": "ab" * 32, "explanation": {"limit": 5}}))
    with pytest.raises(StoreError, match=r"of another run \(limit: 5 there, 3 now\): choose"):
        claim_folder(path, {"data": "cd" * 32}, [tmp_path], {"limit": 3, "more": 1})
    for broken in ("", "5", None):
        path.write_text(broken) if broken is not None else path.unlink()
        with pytest.raises(StoreError, match="is unreadable"):
            claim_folder(path, {"name": "m", "weights": "2"}, [tmp_path])
