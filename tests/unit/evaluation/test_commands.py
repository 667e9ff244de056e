"""The command line: what is refused, and how; comparing; contamination; checkpoints that come."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verl_pipeline.cli import app
from verl_pipeline.evaluation import watch
from verl_pipeline.evaluation.compare import NotComparable, compare_folders
from verl_pipeline.evaluation.config import EvalConfig
from verl_pipeline.evaluation.contamination import seen
from verl_pipeline.evaluation.data import read_rows
from verl_pipeline.evaluation.task import Item, asked

SMALL = "tests.unit.evaluation.small"
RUN = ["eval", "--model", "empty", "--tasks", SMALL]


def invoke(*words):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tasks", "humanevall"], "did you mean humaneval"),
        (["samplin.n=3"], "samplin"),
        (["sampling.n=many"], "sampling.n"),
        (["sampling.n=0"], "at least 1"),
        (["sampling.temperature=0"], "sampling.n=1"),
        (["style=terse"], "style='terse'"),
        (["engine.kind=server"], "engine.url"),
        (["grader.tier=remote"], "grader.url"),
        (["options.gsm8k.first=3"], "options.gsm8k"),
        (["options.small.x=1"], "no x"),
        (["scorer=nope"], "scorer"),
        (["refine.agreement=2"], "refine"),
        (["engine.rope_parameters={factor: 2}"], "rope_type"),
        (["refine.n=2"], "refine.n"),
        (["engine.concurrency=0"], "engine.concurrency"),
        (["grader.workers=-3"], "grader.workers"),
        (["sampling.top_k=-5"], "top_k"),
        (["sampling.temperature=nan"], "temperature"),
        (["--tasks", f"{SMALL},{SMALL}"], "named twice"),
        (["--tasks", "..x"], "..x"),
        (["engine=[1"], "settings"),
        (["options.small=5"], "options"),
        (["train_data=[/nowhere.jsonl]"], "/nowhere.jsonl"),
        (["--model", "/x[bold]y"], "/x[bold]y"),
        (["--output", "/proc/x/y"], "output"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--model", "/nowhere/model"], "model=/nowhere/model"),
        (["--model", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, words, why):
    result = invoke(*RUN, "--output", str(tmp_path / "out"), *words)
    assert result.exit_code == 2 and why in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out/results.json").exists()


def test_a_folder_without_a_model_is_named(tmp_path):
    result = invoke(*RUN, "--model", str(tmp_path), "--output", str(tmp_path / "out"))
    assert result.exit_code == 2 and "no config.json" in result.output


def test_evaluate_by_a_file_of_settings_and_compare(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"model: canonical\ntasks: [{SMALL}]\nsampling: {{n: 1}}\n")
    result = invoke("eval", "--config", str(settings), "--output", str(tmp_path / "right"))
    assert result.exit_code == 0 and "100.0 %" in result.output
    assert (tmp_path / "right/report.html").is_file()
    assert invoke(*RUN, "--n", "1", "--output", str(tmp_path / "empty")).exit_code == 0
    result = invoke("eval-compare", str(tmp_path / "empty"), str(tmp_path / "right"))
    assert result.exit_code == 0 and "+100.0" in result.output and "4 / 0" in result.output
    [row] = compare_folders(tmp_path / "right", tmp_path / "empty")
    assert row["value"] == -1.0 and row["worse"] == 4
    path = tmp_path / "empty/results.json"
    results = json.loads(path.read_text())
    results["tasks"][0]["data"]["sha256"] = "other"
    path.write_text(json.dumps(results))
    with pytest.raises(NotComparable, match="problems, prompts or tests differ"):
        compare_folders(tmp_path / "right", tmp_path / "empty")
    result = invoke("eval-compare", str(tmp_path / "empty"), str(tmp_path / "nothing"))
    assert result.exit_code == 2 and "no results.json" in result.output


def test_problems_of_the_training_data_are_named(tmp_path):
    frame = (
        "You will be given a question and will generate a correct program that passes all of its "
        "tests. "
    )
    texts = [" ".join(f"word{number}x{i}" for i in range(40)) for number in range(5)]
    items = [Item(str(number), asked(frame + text)) for number, text in enumerate(texts)]
    path = tmp_path / "train.jsonl"
    shouted = {"prompt": [{"role": "user", "content": frame + texts[3].upper().replace(" ", "\n")}]}
    other = {"prompt": [{"role": "user", "content": frame + "something else altogether"}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (shouted, other)))
    assert seen(items, [str(path)]) == ["3"], "the frame alone makes nothing seen"
    path.write_text('{"question": "x"}\n')
    with pytest.raises(ValueError, match="no prompt"):
        seen(items, [str(path)])
    assert list(read_rows(path)) == [{"question": "x"}]


def test_only_complete_checkpoints_count(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"global_step_{step}").mkdir()
    assert watch.complete_steps(tmp_path) == []
    (tmp_path / watch.COMPLETE).write_text("4x")
    assert watch.complete_steps(tmp_path) == []
    (tmp_path / watch.COMPLETE).write_text("4")
    assert watch.complete_steps(tmp_path) == [2, 4]


def test_waiting_ends_in_peace_only_if_nothing_certain_is_awaited(tmp_path):
    config = watch.Watch(tmp_path, tmp_path, [], idle_s=10)
    assert not watch._waited_enough(config, 9, set()) and watch._waited_enough(config, 11, {2})
    with pytest.raises(watch.WatchError, match="a checkpoint has not come"):
        watch._waited_enough(config, 11, set())
    with pytest.raises(watch.WatchError, match="step 8 has not come"):
        watch._waited_enough(watch.Watch(tmp_path, tmp_path, [], last_step=8, idle_s=10), 11, {2})


def test_waiting_for_a_checkpoint_ends_and_says_for_what(tmp_path):
    (tmp_path / "run").mkdir()
    small = [str(tmp_path / "run"), "--tasks", SMALL, "--output", str(tmp_path / "out")]
    for words, why in [
        (["--trackers", "foo"], "foo"),
        (["--cores", "a,b"], "--cores"),
        (["--cores", "9999"], "--cores"),
        (["model=empty"], "sets it itself"),
        (["sampling.n=0"], "at least 1"),
        (["--tasks", "parquet"], "options.parquet.file"),
    ]:
        result = invoke("eval-watch", *small, *words)
        assert (
            result.exit_code == 2 and why in result.output and "Traceback" not in result.output
        ), (
            words,
            result.output,
        )
    result = invoke("eval-watch", str(tmp_path / "run"), "--tasks", SMALL, "--output", str(tmp_path / "out"),
                    "--idle-s", "1", "--last-step", "8")  # fmt: skip
    assert (
        result.exit_code == 2
        and "step 8 has not come" in result.output
        and "save_freq" in result.output
    )


def test_the_documentation_has_every_setting_with_its_default():
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()

    def fields(settings, prefix=""):
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if dataclasses.is_dataclass(value):
                yield from fields(value, f"{field.name}.")
            else:
                yield (
                    f"| `{prefix}{field.name}` |"
                    + ("" if value in (None, "") else f" `{value}`")
                    + " |"
                )

    assert [row for row in fields(EvalConfig()) if row not in text] == []
