"""The door for files: complete records stay, whole files are replaced or kept, one writer."""

import errno
import json
import multiprocessing
import os
import resource
import subprocess
import sys

import pytest

from tests.helpers.small_disk import take_snapshot
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.outputs.files import (
    JsonLinesFile,
    RecordKind,
    refuse_inputs,
    replace_file,
    write_json,
    write_lines,
    write_text,
)

KIND = RecordKind("numbers of a test", ("id", "value"))
ROWS = [{"id": 1, "value": "ä\u2028\n"}, {"id": 2, "value": [1.5, None]}, {"id": 3, "value": "}"}]
CONTENT = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.mark.parametrize("kind", [KIND, None])
@pytest.mark.parametrize("size", range(len(CONTENT) + 1))
def test_wherever_a_file_of_records_ends_its_complete_records_stay(tmp_path, size, kind):
    path = tmp_path / "records.jsonl"
    path.write_bytes(CONTENT[:size])
    first_end = CONTENT.index(b"\n")
    if kind and 0 < size < first_end:  # nothing says that this is ours
        with pytest.raises(OutputError, match="line 1 is no JSON object"):
            JsonLinesFile(path, kind)
        assert path.read_bytes() == CONTENT[:size]
        return
    file = JsonLinesFile(path, kind)
    # A record is complete with or without its newline.
    ends = [end for end in range(len(CONTENT)) if CONTENT[end : end + 1] == b"\n"]
    kept = ROWS[: sum(end <= size for end in ends)]
    assert list(file.read_rows()) == kept
    file.append_row({"id": 4, "value": 0})
    file.close()
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == [
        *kept,
        {"id": 4, "value": 0},
    ]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"id": 1, "source": "taco"}\n', "line 1 has the fields id, source and not value"),
        (CONTENT + b"{}\n", r"line 4 has the fields \(none\) and not id, value"),
        (CONTENT + b"\xff\xfe\n" + CONTENT, "line 4 is no JSON object"),
        (CONTENT + b'{"id": 4}', "line 4 has the fields id and not value"),
        (b"[1]", "line 1 is no JSON object"),
    ],
)
def test_records_of_something_else_are_named_and_stay(tmp_path, content, found):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=f"{path} {found}.*numbers of a test; choose another"):
        JsonLinesFile(path, KIND)
    assert path.read_bytes() == content


def test_two_writers_of_one_file_are_one_too_many(tmp_path):
    path = tmp_path / "records.jsonl"
    first = JsonLinesFile(path, KIND)
    first.append_row(ROWS[0])
    before = path.read_bytes()
    with pytest.raises(OutputError, match="another process is writing there"):
        JsonLinesFile(path, KIND)
    first.append_row(ROWS[1])
    first.close()
    assert path.read_bytes().startswith(before)
    again = JsonLinesFile(path, KIND)
    assert list(again.read_rows()) == ROWS[:2]
    again.close()


def _fill_up(path, limit, connection):
    """Append records until a limit on the size of files refuses one; report the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    file = JsonLinesFile(path, KIND)
    try:
        for number in range(1000):
            file.append_row({"id": number, "value": "x" * 50})
    except OutputError as error:
        connection.send(str(error))
    write_failure = None
    try:
        write_text(path.with_name("whole.txt"), "y" * 2 * limit)
    except OutputError as error:
        write_failure = str(error)
    connection.send(write_failure)


@pytest.mark.parametrize("limit", [100, 1000, 1001, 1037])
def test_a_record_that_does_not_fit_is_taken_back(tmp_path, limit):
    path, whole = tmp_path / "records.jsonl", tmp_path / "whole.txt"
    whole.write_text("before")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_fill_up, args=(path, limit, theirs)
    )
    process.start()
    errors = [ours.recv(), ours.recv()]
    process.join()
    for error, file in zip(errors, (path, whole), strict=True):
        assert f"{file}: cannot be written: {os.strerror(errno.EFBIG)}; raise the limit" in error
    content = path.read_bytes()
    assert len(content) <= limit and content.endswith(b"\n")
    assert [json.loads(line)["id"] for line in content.splitlines()] == [
        *range(content.count(b"\n"))
    ]
    assert sorted(name.name for name in tmp_path.iterdir()) == ["records.jsonl", "whole.txt"]
    assert whole.read_text() == "before"


KILLED = """
import os, signal, sys
from pathlib import Path
from verl_pipeline.outputs.files import replace_file
with replace_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_text_that_utf_8_lacks_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "t", "a name of \udcff, ä")
    assert (tmp_path / "t").read_text(encoding="utf-8") == "a name of \\udcff, ä"


def test_a_whole_file_is_replaced_or_kept(tmp_path):
    path = tmp_path / "a/b/report.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    with pytest.raises(KeyboardInterrupt), replace_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert take_snapshot(path.parent).keys() == {"report.json"}
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert json.loads(path.read_text()) == {"a": 1}
    assert len([*path.parent.iterdir()]) == 2, "the killed process has left its file"
    with replace_file(path) as file:  # the next one removes it, but not that of a living one
        with replace_file(path.with_name("other")) as other:
            other.write(b"1")
        write_lines(path.with_name("report.json.1"), ROWS)
        file.write(CONTENT)
    assert path.read_bytes() == CONTENT
    assert take_snapshot(path.parent).keys() == {"report.json", "other", "report.json.1"}


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target/card.md", tmp_path / "link.md"
    target.parent.mkdir()
    link.symlink_to(target)
    write_text(link, "one")
    write_text(link, "two")
    assert link.is_symlink() and target.read_text() == "two"
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OutputError, match="link"):
        write_text(link, "three")


def test_an_input_is_known_by_any_name(tmp_path):
    source = tmp_path / "problems.jsonl"
    source.write_text("{}\n")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "copy").write_text("{}\n")
    for name in ("problems.jsonl", "link", "hard", "../" + tmp_path.name + "/link"):
        with pytest.raises(OutputError, match="would overwrite the input PROBLEMS"):
            refuse_inputs(tmp_path / name, "--output", {"PROBLEMS": source})
    for name in ("copy", "new", "problems.jsonl/new"):
        refuse_inputs(tmp_path / name, "--output", {"PROBLEMS": source})
