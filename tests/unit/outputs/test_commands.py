"""Every command that writes, with every output that is not its own: refused, nothing changed."""

import contextlib
import json
import os
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.pipeline import RESULTS
from tests.helpers.output_commands import COMMANDS, FILLING, QUICKSTART
from tests.helpers.small_disk import run_on_disk, take_snapshot
from tests.helpers.thinned import thin_out
from verl_pipeline.evaluation.checkpoint_watcher import WATCHING
from verl_pipeline.evaluation.store import EVALUATION
from verl_pipeline.grading.grading_files import VERDICTS
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.outputs.files import JsonLinesFile, write_lines
from verl_pipeline.outputs.folders import claim_output
from verl_pipeline.recipes.deepcoder.card import CARD_MARK
from verl_pipeline.recipes.deepcoder.demo import DEMONSTRATION
from verl_pipeline.recipes.deepcoder.generate import GENERATION
from verl_pipeline.recipes.deepcoder.prepare import PREPARATION
from verl_pipeline.recipes.deepcoder.stages import run_state

FOREIGN = {"README.md": "# Mine\n", "problems.jsonl": '{"id": 1, "source": "taco"}', "b": "\0\xff"}
FILE_COMMANDS = [name for name, command in COMMANDS.items() if not command.writes_folder]
FOLDER_COMMANDS = [name for name, command in COMMANDS.items() if command.writes_folder]
pytestmark = pytest.mark.medium


def invoke(name, tmp_path, output, *more):
    """Run a command on an output; return it with the rest of what is below the folder."""
    command = COMMANDS[name]
    inputs = tmp_path / "inputs"
    inputs.mkdir(exist_ok=True)
    arguments = command.list_arguments(inputs)
    return lambda: CliRunner().invoke(
        command.app,
        [*arguments, *more, "--output", str(output)],
        env={"COLUMNS": "300", "PWD": str(tmp_path)},
    )


def check_refusal(run, tmp_path, *words):
    """Exit code 2, one line with the words, and every byte as it was."""
    before = take_snapshot(tmp_path)
    result = run()
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, result.output
    assert take_snapshot(tmp_path) == before


def make_place(tmp_path, kind):
    """Make something that no command may write to; return its path."""
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
        for name, text in FOREIGN.items():
            (place / name).write_text(text)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/full")
    elif kind == "parent is a file":
        place.write_text("mine")
        return place / "out"
    elif kind == "link":
        (tmp_path / "target").mkdir()
        (tmp_path / "target/mine").write_text("mine")
        place.symlink_to("target")
    else:
        place.write_text(kind)
    return place


@pytest.mark.parametrize("name", FILE_COMMANDS)
@pytest.mark.parametrize(
    "kind",
    ["folder", "pipe", "device", "parent is a file", "link", "text\n", "text", '{"id": 1}', "7\n"],
)
def test_a_file_that_is_not_the_commands_own_is_refused(tmp_path, name, kind):
    place = make_place(tmp_path, kind)
    check_refusal(invoke(name, tmp_path, place), tmp_path, str(place))


@pytest.mark.parametrize("name", FOLDER_COMMANDS)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "parent is a file", "link", "text\n"])
def test_a_folder_that_is_not_the_commands_own_is_refused(tmp_path, name, kind):
    place = make_place(tmp_path, kind)
    # Some commands resolve links before they start others.
    shown = place if name in ("eval", "generate", "prepare") else place.resolve()
    check_refusal(invoke(name, tmp_path, place), tmp_path, str(shown))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, command in COMMANDS.items()
        if command.input
        for way in ("itself", "link", "hard link")
        if not (command.writes_folder and way == "hard link")  # folders have none
    ],
)
def test_no_command_writes_to_its_input(tmp_path, name, way):
    source, link = tmp_path / "inputs" / COMMANDS[name].input, tmp_path / "link"
    run = invoke(name, tmp_path, source if way == "itself" else link)
    if way == "link":
        link.symlink_to(source)
    elif way == "hard link":
        link.hardlink_to(source)
    check_refusal(run, tmp_path, "--output")


@pytest.mark.parametrize("name", FOLDER_COMMANDS)
@pytest.mark.parametrize("lock", ['{"command": "another"}\n', "5\n", '{"comm'])
def test_the_folder_of_another_command_is_refused(tmp_path, name, lock):
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / ".lock").write_text(lock)
    check_refusal(invoke(name, tmp_path, folder), tmp_path, str(folder), "belongs to")


def test_a_watcher_does_not_write_among_the_checkpoints(tmp_path):
    output = tmp_path / "inputs/checkpoints/global_step_1/eval"
    check_refusal(invoke("eval-watch", tmp_path, output), tmp_path, "folder of the checkpoints")


def test_an_input_inside_the_own_folder_is_not_overwritten(tmp_path):
    output = tmp_path / "out"
    run = invoke("eval", tmp_path, output)
    assert run().exit_code == 0
    samples = output / "small/samples.jsonl"
    run = invoke("eval", tmp_path, output, "--model", str(samples))
    check_refusal(run, tmp_path, "would overwrite the input model", str(samples))


@pytest.mark.parametrize("name", ["grade", "eval", "card"])
def test_the_own_output_is_taken_up_again_beside_other_files(tmp_path, name):
    output = tmp_path / "out"
    run = invoke(name, tmp_path, output)
    assert run().exit_code == 0
    place = output if output.is_dir() else tmp_path
    (place / "notes.txt").write_text("mine")
    result = run()
    assert result.exit_code == 0, result.output
    assert (place / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_verdicts_without_a_final_newline_lose_only_what_is_unfinished(tmp_path, cut):
    output = tmp_path / "v.jsonl"
    run = invoke("grade", tmp_path, output)
    assert run().exit_code == 0
    complete = output.read_bytes()
    output.write_bytes(complete[:-cut])
    result = run()
    assert result.exit_code == 0 and f"{3 if cut == 1 else 2} verdicts are in" in result.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(row["line"] for row in rows) == [1, 2, 3]
    kept = complete if cut == 1 else complete[: complete[:-1].rfind(b"\n") + 1]
    assert output.read_bytes().startswith(kept)


def test_a_last_line_that_is_no_record_is_not_cut(tmp_path):
    output = tmp_path / "v.jsonl"
    run = invoke("grade", tmp_path, output)
    assert run().exit_code == 0
    output.write_bytes(output.read_bytes() + b"a note of mine")
    check_refusal(run, tmp_path, str(output), "ends with 'a note of mine'")


def test_a_second_call_on_the_same_verdicts_is_refused(tmp_path):
    output = tmp_path / "v.jsonl"
    run = invoke("grade", tmp_path, output)
    with contextlib.closing(JsonLinesFile(output, VERDICTS)):
        check_refusal(run, tmp_path, str(output), "another process is writing")
    assert run().exit_code == 0 and len(output.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("name", FOLDER_COMMANDS)
def test_a_second_call_in_the_same_folder_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr(run_state, "LOCK_TIMEOUT_S", 0.1)
    output = tmp_path / "out"
    kinds = {
        "eval": EVALUATION,
        "eval-watch": WATCHING,
        "generate": GENERATION,
        "prepare": PREPARATION,
        "train": run_state.TRAINING,
        "demo": DEMONSTRATION,
        "ablation": DEMONSTRATION,
        "pipeline benchmark": RESULTS,
    }
    with claim_output(output, kinds[name]):
        if name == "train":  # a dry run takes no lock
            with pytest.raises(OutputError, match="another process is writing"):
                with run_state.lock_output(output, Console(quiet=True)):
                    pass
        else:
            run = invoke(name, tmp_path, output)
            check_refusal(run, tmp_path, str(output), "another process is writing")


@pytest.mark.parametrize("name", thin_out(FILLING, 2))
def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path, name):
    inputs, disk = tmp_path / "inputs", tmp_path / "disk"
    inputs.mkdir()
    disk.mkdir()
    command, output = FILLING[name], disk / "out"
    arguments = command.list_arguments(inputs)
    if name == "grade":
        write_lines(output, [dict.fromkeys(VERDICTS.fields, 0)])
    elif name == "eval":
        run = CliRunner().invoke(command.app, [*arguments, "--output", str(output)])
        assert run.exit_code == 0, run.output
        arguments += ["--n", "4"]
    elif name == "card":
        output.write_text(f"{CARD_MARK} But an older one, and as long: {'x' * 9000}")
        arguments += ["--name", "n" * 9000]
    words = [sys.executable, "-m", command.module, *arguments, "--output", str(output)]
    run = run_on_disk("full", disk, *words)
    assert run.exit_code == 2 and "Traceback" not in run.output, run.output
    assert f"{output}" in run.output and "No space left on device; free some" in run.output
    for path, entry in run.before.items():
        # Records may have come behind those that were there.
        assert (
            run.after[path].startswith(entry)
            if path.endswith(("jsonl", "out"))
            else (run.after[path] == entry)
        )
    for path, entry in run.after.items():
        kind, _, content = entry.partition(" ")
        leaf = path.rpartition("/")[2]
        assert not leaf.startswith(".") or leaf == ".lock", "an unfinished file is left"
        if kind == "100000" and (path.endswith("jsonl") or name == "grade" and leaf == "out"):
            lines = bytes.fromhex(content).split(b"\n")
            assert lines.pop() == b"" and all(map(json.loads, lines))
    if name in ("grade", "eval"):
        assert run.after != run.before, "nothing was written before the disk was full"


@pytest.mark.parametrize("name", thin_out([*FILLING, "eval-watch", "demo", "quickstart"], 2))
def test_a_read_only_disk_is_named(tmp_path, name):
    inputs, disk = tmp_path / "inputs", tmp_path / "disk"
    inputs.mkdir()
    disk.mkdir()
    command = {**COMMANDS, **FILLING, "quickstart": QUICKSTART}[name]
    arguments = [sys.executable, "-m", command.module, *command.list_arguments(inputs)]
    run = run_on_disk("read-only", disk, *arguments, "--output", str(disk / "out"))
    assert run.exit_code == 2 and "Traceback" not in run.output, run.output
    assert f"{disk}/out" in run.output and "Read-only file system" in run.output


def test_a_quickstart_below_a_file_is_refused(tmp_path):
    place = make_place(tmp_path, "mine")
    run = CliRunner().invoke(QUICKSTART.app, ["--output", str(place)], env={"COLUMNS": "300"})
    assert run.exit_code == 2 and f"{place} is not a folder" in run.output
    assert place.read_text() == "mine"
