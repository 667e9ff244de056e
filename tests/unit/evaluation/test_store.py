"""What is kept on disk: whole lines, one owner, nothing drawn twice."""

import json

import pytest

from verl_pipeline.evaluation.store import OtherRun, TaskStore, claim, read_lines, sole_owner


def sample(number: int, **fields):
    return {"id": "a", "sample": number, "response": "r\u2028é", "tokens": 1, **fields}


def test_a_cut_off_line_is_removed_before_the_next_is_written(tmp_path):
    store = TaskStore(tmp_path)
    store.add_sample(sample(0))
    store.add_sample(sample(1))
    store.close()
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    again = TaskStore(tmp_path)
    assert list(again.samples) == [("a", 0)]
    again.add_sample(sample(1))
    again.close()
    assert [row["sample"] for row in read_lines(path)] == [0, 1]
    assert next(read_lines(path)) == sample(0)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"id": "a", "sample": 0}\n{"id": \n{"id": "a", "sample": 1}\n')
    with pytest.raises(OtherRun, match=r"samples.jsonl:2: no JSON object .* remove the line"):
        TaskStore(tmp_path)


def test_what_could_not_be_graded_is_graded_again(tmp_path):
    store = TaskStore(tmp_path)
    for number, reward in enumerate([1.0, None]):
        store.add_sample(sample(number))
        store.add_verdict({"id": "a", "sample": number, "verdict": "x", "reward": reward})
    store.close()
    again = TaskStore(tmp_path)
    assert [row["sample"] for row in again.ungraded()] == [1]
    again.close()


@pytest.mark.parametrize("line", ["5", "[1]", "\udcff"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "samples.jsonl").write_bytes(f"{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(OtherRun, match="samples.jsonl:1: no JSON object"):
        TaskStore(tmp_path)


def test_samples_of_another_model_are_refused_by_name(tmp_path):
    path = tmp_path / "model.json"
    claim(path, {"name": "m", "weights": "1"}, [tmp_path])
    claim(path, {"name": "m", "weights": "2"}, [tmp_path])  # nothing has been drawn yet
    store = TaskStore(tmp_path)
    store.add_sample(sample(0))
    store.close()
    claim(path, {"weights": "2", "name": "m"}, [tmp_path])
    with pytest.raises(OtherRun, match=r"weights: '2' there, '3' now.*another output"):
        claim(path, {"name": "m", "weights": "3"}, [tmp_path])
    assert json.loads(path.read_text())["weights"] == "2"
    for broken in ("", None):
        path.write_text(broken) if broken is not None else path.unlink()
        with pytest.raises(OtherRun, match="does not say whose"):
            claim(path, {"name": "m", "weights": "2"}, [tmp_path])


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    with sole_owner(tmp_path):
        with pytest.raises(OtherRun, match="another evaluation is running"):
            with sole_owner(tmp_path):
                pass
    with sole_owner(tmp_path):
        pass
