"""The commands: refused settings, comparison, contamination, and waiting for checkpoints."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verl_pipeline.cli import app
from verl_pipeline.evaluation import checkpoint_watcher
from verl_pipeline.evaluation.checkpoint_evaluation import WatchError, WatchSettings
from verl_pipeline.evaluation.comparison import ComparisonError, compare_folders
from verl_pipeline.evaluation.contamination import find_contaminated_problems
from verl_pipeline.evaluation.data import read_rows
from verl_pipeline.evaluation.eval_settings import BadSetting, EvalConfig
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.task import TaskItem, make_conversation
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import LATEST_STEP_FILE

SMALL = "tests.helpers.small_task"
RUN = ["eval", "--model", "empty", "--tasks", SMALL]


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})


def test_misspelt_names_in_a_settings_file_are_suggested(tmp_path):
    path = tmp_path / "settings.yaml"
    for text, message in (
        ("samping: {n: 1}\n", "samping.n is not a setting; did you mean sampling.n?"),
        ("engine:\n  concurency: 2\n", "did you mean engine.concurrency?"),
        ("- limit\n", "expected settings by name"),
    ):
        path.write_text(text)
        result = invoke(*RUN, "--config", str(path), "--output", str(tmp_path / "out"))
        assert result.exit_code == 2 and message in result.output, result.output
    # Names below such a setting are free.
    path.write_text("engine: {chat_template_kwargs: {enable_thinkin: false, a: {b: 1}}}\n")
    result = invoke(*RUN, "--n", "1", "--config", str(path), "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "humanevall"], "did you mean humaneval"),
        (["samplin.n=3"], "samplin.n is not a setting; did you mean sampling.n?"),
        (["sampling.max_token=3"], "did you mean sampling.max_tokens?"),
        (["temperature=3"], "did you mean sampling.temperature?"),
        (["engine.chat_template_kwarg.x=3"], "chat_template_kwarg"),
        (["limit"], "'limit' is not a setting: write key=value"),
        (["=3"], "'=3' is not a setting"),
        (["options.smal.programs=True"], "did you mean small?"),
        (["options.small.program=True"], "did you mean programs?"),
        (["limit=-5"], "limit=-5: must be a number of at least 1"),
        (["limit=0"], "limit=0: must be"),
        (["sampling.n=false"], "sampling.n=False: must be a whole number"),
        (["style=[]"], "style=[]: must be text"),
        (["sampling.top_p=2"], "sampling.top_p=2.0: must be above 0 and at most 1"),
        (["sampling.top_p=nan"], "sampling.top_p=nan: must be"),
        (["sampling.max_tokens=0"], "sampling.max_tokens=0"),
        (["sampling.temperature=-1"], "sampling.temperature=-1.0: must be"),
        (["sampling.temperature=inf"], "sampling.temperature=inf: must be"),
        (["engine.timeout_s=nan"], "engine.timeout_s=nan: must be"),
        (["engine.max_model_len=-1"], "engine.max_model_len=-1: must be"),
        (["engine.tensor_parallel_size=0"], "engine.tensor_parallel_size=0: must be"),
        (["engine.gpu_memory_utilization=1.5"], "engine.gpu_memory_utilization=1.5: must be"),
        (["engine.trained_length=0"], "engine.trained_length=0: must be"),
        (["refine.confidence=nan"], "refine.confidence=nan: must be at least 0 and below 1"),
        (["refine.n=-1"], "refine.n=-1: must be"),
        (["output="], "output= is empty: give it a value"),
        (["sampling=3"], "sampling: set its members, sampling.n, sampling.temperature"),
        (["tasks=humaneval"], "tasks=humaneval: must be a list"),
        (["limit=1.5"], "limit=1.5: must be a whole number"),
        (["hub=maybe"], "hub=maybe: must be true or false"),
        (["engine.chat_template_kwargs=3"], "must be names with values"),
        (["--tasks", f"{SMALL},"], "a name is empty"),
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
        (["engine.may_drop=[seed]"], "engine.may_drop: seed is none of temperature, top_p"),
        (["engine.concurrency=0"], "engine.concurrency"),
        (["grader.workers=-3"], "grader.workers"),
        (["sampling.top_k=-5"], "top_k"),
        (["sampling.temperature=nan"], "temperature"),
        (["--tasks", f"{SMALL},{SMALL}"], "named twice"),
        (["--tasks", "..x"], "..x"),
        (["engine=[1"], "engine=[1: not valid YAML"),
        (["engine.kind=server", "engine.url=localhost:8000"], "http://HOST:8000/v1"),
        (["options.small=5"], "options"),
        (["train_data=[/nowhere.jsonl]"], "/nowhere.jsonl"),
        (["--model", "/x[bold]y"], "/x[bold]y"),
        (["--output", "/proc/x/y"], "output"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--model", "/nowhere/model"], "model=/nowhere/model"),
        (["--model", "/nowhere.jsonl"], "/nowhere.jsonl"),
        (["--model", "~nobody-of-this-name/model"], "no such folder"),
        (["--model", __file__], "a file; name the folder of a model, or a .jsonl file"),
        (["--output", "~/out"], "~ stands for itself within a word; write /"),
        (["system=Answer #1"], "YAML takes what follows # for a comment"),
        (["system=${nowhere}"], "system: Interpolation key 'nowhere' not found"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(tmp_path, arguments, message):
    result = invoke(*RUN, "--output", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out/results.json").exists()


def test_an_empty_output_is_refused():
    with pytest.raises(BadSetting, match="output is empty"):
        load_eval_config(None, ["model=empty", f"tasks=[{SMALL}]", "output=''"])


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    result = invoke(*RUN, "--model", str(tmp_path), "--output", str(tmp_path / "out"))
    assert result.exit_code == 2 and "no config.json" in result.output


def test_evaluating_with_a_settings_file_and_comparing(tmp_path):
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
    differing = r"problems, prompts or tests differ: .*empty/results\.json has .* \(small@preset\)"
    with pytest.raises(ComparisonError, match=differing):
        compare_folders(tmp_path / "right", tmp_path / "empty")
    results["tasks"][0]["task"] = "absent"
    path.write_text(json.dumps(results))
    none = r"no task in common: .*right/results\.json \(.*\) and .*empty/results\.json \(absent\)"
    with pytest.raises(ComparisonError, match=none):
        compare_folders(tmp_path / "right", tmp_path / "empty")
    result = invoke("eval-compare", str(tmp_path / "empty"), str(tmp_path / "nothing"))
    assert result.exit_code == 2 and "results.json: no such file" in result.output


def test_a_comparison_has_the_differences_and_caveats_of_both_sides(tmp_path):
    for name, settings in {
        "whole": [],
        "other": ["sampling.max_tokens=9", "sampling.n=1", "purpose=choose"],
        "limited": ["limit=2"],
    }.items():
        result = invoke(*RUN, "--output", str(tmp_path / name), *settings)
        assert result.exit_code == 0, result.output
    result = invoke("eval-compare", str(tmp_path / "whole"), str(tmp_path / "other"))
    assert result.exit_code == 0
    for text in (
        "small@preset@chosen",
        "small: sampling.max_tokens: 32768 before, 9 after",
        "small: sampling.n: 2 before, 1 after",
        "small: NOT COMPARABLE: only the score after: CHOSEN ON A TEST SET",
        "small, before: the answers are preset (empty)",
        "small, after: the answers are preset (empty)",
    ):
        assert text in result.output, text
    path = tmp_path / "other/results.json"
    results = json.loads(path.read_text())
    results["tasks"][0]["tier"] = "namespaces, rlimits"
    path.write_text(json.dumps(results))
    result = invoke("eval-compare", str(tmp_path / "whole"), str(tmp_path / "other"))
    assert "NOT COMPARABLE: tier: namespaces, process before, namespaces, rlimits" in result.output
    result = invoke("eval-compare", str(tmp_path / "whole"), str(tmp_path / "limited"))
    assert (
        result.exit_code == 2 and "2 problems of this file (small@first2@preset)" in result.output
    )


def test_problems_in_the_training_data_are_found(tmp_path):
    instruction = (
        "You will be given a question and will generate a correct program that passes all of its "
        "tests. "
    )
    texts = [" ".join(f"word{number}x{i}" for i in range(40)) for number in range(5)]
    items = [
        TaskItem(str(number), make_conversation(instruction + text))
        for number, text in enumerate(texts)
    ]
    path = tmp_path / "train.jsonl"
    prompts = [texts[3].upper().replace(" ", "\n"), "something else altogether"]
    rows = [{"prompt": [{"role": "user", "content": instruction + text}]} for text in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pattern = str(path.with_name(f"{path.stem[:-1]}?{path.suffix}"))
    assert find_contaminated_problems(items, [pattern]) == ["3"]
    assert find_contaminated_problems(items, [str(path)]) == ["3"], (
        "the instruction alone is ignored"
    )
    path.write_text('{"question": "x"}\n')
    with pytest.raises(ValueError, match="no prompt"):
        find_contaminated_problems(items, [str(path)])
    assert list(read_rows(path)) == [{"question": "x"}]


def test_only_complete_checkpoints_count(tmp_path):
    for step in (2, 4, 10):
        (tmp_path / f"global_step_{step}").mkdir()
    assert checkpoint_watcher.list_complete_steps(tmp_path) == []
    (tmp_path / LATEST_STEP_FILE).write_text("4x")
    assert checkpoint_watcher.list_complete_steps(tmp_path) == []
    (tmp_path / LATEST_STEP_FILE).write_text("4")
    assert checkpoint_watcher.list_complete_steps(tmp_path) == [2, 4]


def test_a_long_wait_is_an_error_if_a_certain_checkpoint_is_due(tmp_path):
    config = WatchSettings(tmp_path, tmp_path, [], idle_s=10)
    assert not checkpoint_watcher._is_wait_over(
        config, 9, set()
    ) and checkpoint_watcher._is_wait_over(config, 11, {2})
    with pytest.raises(WatchError, match="a checkpoint has not come"):
        checkpoint_watcher._is_wait_over(config, 11, set())
    config = WatchSettings(tmp_path, tmp_path, [], last_step=8, idle_s=10)
    with pytest.raises(WatchError, match="step 8 has not come"):
        checkpoint_watcher._is_wait_over(config, 11, {2})


def test_the_watcher_refuses_bad_settings_and_names_a_missing_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_watcher, "POLL_INTERVAL_S", 0.1)
    (tmp_path / "run").mkdir()
    small = [str(tmp_path / "run"), "--tasks", SMALL, "--output", str(tmp_path / "out")]
    for arguments, message in [
        (["--trackers", "foo"], "foo"),
        (["--trackers", "tensorbord"], "did you mean tensorboard?"),
        (["--idle-s", "nan"], "--idle-s"),
        (["limit=-1"], "limit=-1: must be"),
        (["--cores", "a,b"], "--cores"),
        (["--cores", "9999"], "--cores"),
        (["model=empty"], "sets it itself"),
        (["sampling.n=0"], "at least 1"),
        (["--tasks", "parquet"], "options.parquet.file"),
    ]:
        result = invoke("eval-watch", *small, *arguments)
        assert (
            result.exit_code == 2 and message in result.output and "Traceback" not in result.output
        ), (
            arguments,
            result.output,
        )
    result = invoke("eval-watch", *small, "--idle-s", "1", "--last-step", "8")
    assert (
        result.exit_code == 2
        and "step 8 has not come" in result.output
        and "save_freq" in result.output
    )


def test_the_documentation_lists_every_setting_with_its_default():
    text = (Path(__file__).parents[3] / "docs" / "evaluation" / "settings.md").read_text()

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
