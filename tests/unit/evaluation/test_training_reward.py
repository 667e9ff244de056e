"""Evaluations by a training's own reward: the same scores as in verl's own reward path."""

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from typer.testing import CliRunner

from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.thinned import thin_out_rows
from tests.helpers.verl_rows import make_row, write_answers, write_gsm8k, write_parquet
from verl_pipeline.cli import app
from verl_pipeline.evaluation.checkpoint_evaluation import make_metrics
from verl_pipeline.evaluation.comparison import compare_folders
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.score_tables import make_checkpoint_table
from verl_pipeline.processes import wait_until_ended
from verl_pipeline.verl_adapter.settings.run_configuration import find_run_config, read_run_reward

pytestmark = [pytest.mark.medium, pytest.mark.timeout(600)]

FUNCTIONS = """
import asyncio, os, time

def compute_score(data_source, solution_str, ground_truth, extra_info):
    return solution_str.endswith(ground_truth)

def shaped(data_source, solution_str, ground_truth, extra_info, bonus=0.0):
    return 3.0 * solution_str.endswith(ground_truth) - 1 + bonus

async def slow(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    await asyncio.sleep(0.01)
    right = solution_str.endswith(ground_truth)
    return {"score": 1.0 if right else -1.0, "acc": right, "pred": solution_str[-2:]}

def info(data_source, solution_str, ground_truth, extra_info):
    known = {"split": "test", "num_turns": 2, "rollout_reward_scores": {}}
    return float(all(extra_info[key] == value for key, value in known.items()))

def misbehave(data_source, solution_str, ground_truth, extra_info):
    action = solution_str.split()[0] if solution_str else ""
    if action == "raise":
        raise KeyError("no such key")
    if action == "paint":
        raise ValueError(chr(27) + "[31mred")
    if action == "hang":
        time.sleep(1e6)
    if action == "exit":
        raise SystemExit(1)
    if action == "die":
        os._exit(1)
    values = {"nan": float("nan"), "none": None, "text": "1", "empty": {}, "huge": 10**400}
    return values.get(action, 1.0)

def ungraded(data_source, solution_str, ground_truth, extra_info):
    if solution_str == ground_truth:
        return {"score": 1.0, "verdict": "accepted"}
    return {"score": 0.0, "verdict": "infrastructure", "reason": "the judge is away"}

def always_raises(data_source, solution_str, ground_truth, extra_info):
    raise ZeroDivisionError("of no use")

def other_signature(response, truth):
    return 1.0

def returns_text(data_source, solution_str, ground_truth, extra_info):
    return "good"

NUMBER = 5
"""
TRUTHS = ["18", "3", "70000", "-4", "0"]


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(FUNCTIONS)
    return path


def evaluate(folder, data, answers, *settings, expected=0):
    """Run the command; return what it prints, and the task's results and verdicts."""
    arguments = ["eval", "--tasks", "parquet", "--n", "1", "--output", str(folder)]
    arguments += ["--model", str(answers), f"options.parquet.file={data}", *settings]
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert run.exit_code == expected, run.output
    if expected == 2:
        assert "Traceback" not in run.output and not list(folder.rglob("samples.jsonl"))
        return run.output, None, None
    [task] = json.loads((folder / "results.json").read_text())["tasks"]
    verdicts = {row["id"]: row for row in read_records(folder / "parquet/verdicts.jsonl")}
    return run.output, task, verdicts


def score_as_verl(rows, responses, **reward):
    """The answers of verl's own reward manager, as its configuration makes it."""
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    class Characters:
        def decode(self, ids, skip_special_tokens=True):
            return "".join(map(chr, ids.tolist()))

    settings = {"reward_manager": {"source": "register", "name": "naive"}, **reward}
    manager = load_reward_manager(OmegaConf.create({"reward": settings}), Characters())
    answers = []
    for row, response in zip(rows, responses, strict=True):
        ids = torch.tensor([[*map(ord, response)]], dtype=torch.long)
        columns = {key: np.array([row[key]], dtype=object) for key in row if key != "prompt"}
        data = DataProto.from_dict(
            {"responses": ids, "attention_mask": torch.ones_like(ids)},
            columns | {"__num_turns__": np.array([2])},
        )
        answers.append(manager.loop.run_until_complete(manager.run_single(data)))
    return answers


@pytest.mark.slow
def test_gsm8k_in_verls_own_form_scores_100_percent(tmp_path):
    data = write_gsm8k(tmp_path / "test.parquet", TRUTHS)
    shown, task, _ = evaluate(tmp_path / "canonical", data, "canonical")
    assert task["pass@1"]["value"] == 1.0 and task["grader"] == "verl"
    assert "graded by a training's own reward" in shown and "verl for openai/gsm8k" in shown
    assert "NO ANSWERS" not in shown
    answers = write_answers(tmp_path / "a.jsonl", [f"so it is\n#### {t}" for t in TRUTHS])
    _, task, verdicts = evaluate(tmp_path / "given", data, answers)
    assert task["pass@1"]["value"] == 1.0 and task["mean_reward"] is None
    assert {row["verdict"] for row in verdicts.values()} == {"accepted"}
    assert task["cons@k"] == [], "verl's scorer for GSM8K reports no answer that could vote"


@pytest.mark.parametrize(
    "source", ["openai/gsm8k", "HuggingFaceH4/MATH-500", "math_dapo", "aime_2024"]
)
def test_canonical_answers_suit_every_scorer_of_verl(tmp_path, source):
    rows = [make_row(i, source, truth) for i, truth in enumerate(TRUTHS)]
    data = write_parquet(tmp_path / "val.parquet", rows)
    _, task, _ = evaluate(tmp_path / "out", data, "canonical", "options.parquet.grader=verl")
    assert task["pass@1"]["value"] == 1.0


def make_random_rows(generator):
    """Rows of every kind of source that verl scores by its text, with responses of all forms."""
    sources = ["openai/gsm8k", "lighteval/MATH", "math_dapo", "aime_2024", "searchR1_nq"]
    forms = ["#### {}", "\\boxed{{{}}}", "Answer: {}", "<answer>{}</answer>", "{}", "", "#### \n"]
    rows, responses = [], []
    for index in range(60):
        truth = str(generator.randrange(-5, 2000))
        source = sources[index % len(sources)]
        named = {"target": [truth]} if source.startswith("searchR1") else truth
        rows.append(make_row(index, source, named))
        given = generator.choice([truth, f"{int(truth):,}", "7", f"${truth}", f"{truth}."])
        form = generator.choice(forms)
        responses.append("x" * generator.randrange(400) + " " + form.format(given))
    return rows, responses


def test_scores_equal_those_of_verls_own_reward_path(tmp_path):
    rows, responses = make_random_rows(random.Random(5))
    files = []
    for kind in {type(row["reward_model"]["ground_truth"]) for row in rows}:
        part = [r for r in rows if type(r["reward_model"]["ground_truth"]) is kind]
        for row in part:
            row["extra_info"]["name"] = f"row-{row['extra_info']['index']}"
        files.append(str(write_parquet(tmp_path / f"{kind.__name__}.parquet", part)))
    answers = write_answers(tmp_path / "a.jsonl", responses)
    _, task, verdicts = evaluate(tmp_path / "out", f"[{','.join(files)}]", answers)
    expected = score_as_verl(rows, responses)
    rewards = [answer["reward_score"] for answer in expected]
    assert [verdicts[f"row-{i}"]["training_reward"] for i in range(60)] == rewards
    for index, answer in enumerate(expected):
        report = answer["reward_extra_info"]
        assert verdicts[f"row-{index}"]["reward"] == float(report["acc"])
    assert set(rewards) >= {-1.0, 0.0, 1.0}
    assert task["mean_reward"]["value"] == pytest.approx(sum(rewards) / 60)


@pytest.mark.parametrize("name", ["compute_score", "slow", "shaped", "info"])
def test_a_custom_function_is_called_as_verl_calls_it(tmp_path, functions, name):
    rows = [make_row(i, "mine", truth) for i, truth in enumerate(TRUTHS)]
    data = write_parquet(tmp_path / "val.parquet", rows)
    responses = [truth if i % 2 else f"not {truth}1" for i, truth in enumerate(TRUTHS)]
    answers = write_answers(tmp_path / "a.jsonl", responses)
    kwargs = {"bonus": 0.25} if name == "shaped" else {}
    settings = [f"options.parquet.grader={functions}:{name}"]
    settings += [f"options.parquet.reward_kwargs.{key}={value}" for key, value in kwargs.items()]
    shown, task, verdicts = evaluate(tmp_path / "out", data, answers, *settings)
    custom = {"path": str(functions), "name": name, "reward_kwargs": kwargs}
    expected = score_as_verl(rows, responses, custom_reward_function=custom)
    rewards = [answer["reward_score"] for answer in expected]
    assert [verdicts[f"row-{i}"]["training_reward"] for i in range(len(rows))] == rewards
    if name == "shaped":
        assert task["pass@1"] is None and task["pass@k"] == [] and "mean reward 0.450" in shown
    elif name == "slow":
        assert task["pass@1"]["value"] == 0.4 and task["mean_reward"]["value"] < 0
        assert verdicts["row-1"]["answer"] == "3"
    else:
        assert task["pass@1"]["value"] == sum(rewards) / len(rewards)


@pytest.mark.parametrize(
    ("action", "reason"),
    thin_out_rows(
        [
            ("raise", "KeyError: 'no such key'"),
            ("paint", "[31mred"),
            ("hang", "no reward within grader.reward_s="),
            ("exit", "SystemExit: 1"),
            ("die", "ended its process"),
            ("nan", "returned nan"),
            ("none", "returned None"),
            ("text", "returned '1'"),
            ("empty", "KeyError: 'score'"),
            ("huge", "an integer of 1329 bits"),
        ],
        keep=4,
    ),
)
def test_a_failure_of_the_function_is_no_reward(tmp_path, functions, action, reason):
    data = write_gsm8k(tmp_path / "val.parquet", TRUTHS[:3])
    answers = write_answers(tmp_path / "a.jsonl", ["fine", f"{action} now", "fine too"])
    grader = f"options.parquet.grader={functions}:misbehave"
    # The function that hangs takes all of it; the others take milliseconds, without their start.
    deadline = f"grader.reward_s={min(scale_deadline(4), 10):.0f}"
    shown, task, verdicts = evaluate(tmp_path / "o", data, answers, grader, deadline, expected=3)
    assert verdicts["row-1"]["verdict"] == "infrastructure" and verdicts["row-1"]["reward"] is None
    assert reason in verdicts["row-1"]["reason"] and reason in shown and "\x1b" not in shown
    assert task["counts"]["infrastructure"] == 1 and task["pass@1"]["value"] == 1.0
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    serving = [words for words in left if any("forkserver" in word for word in words)]
    assert len(serving) <= 1, "only the parent of the reward processes may live"


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("time.sleep(1e6)", marks=pytest.mark.slow),
        "re.match('(a+)+$', 'a' * 60 + 'b')",
    ],
)
def test_a_hanging_function_ends_with_the_evaluation(tmp_path, functions, number, hang):
    """Only the evaluation gets the signal; the regular expression holds Python's lock."""
    data = write_gsm8k(tmp_path / "val.parquet", ["1"])
    started = tmp_path / "started"
    functions.write_text(
        "import os, pathlib, re, time\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n"
        "    if solution_str == 'hang':\n"
        f"        pathlib.Path('{started}').write_text(str(os.getpid()))\n"
        f"        {hang}\n"
        "    return 1.0\n"
    )
    answers = write_answers(tmp_path / "a.jsonl", ["hang"])
    command = [sys.executable, "-m", "verl_pipeline.cli", "eval", "--model", str(answers)]
    command += ["--tasks", "parquet", "--n", "1", "--output", str(tmp_path / "out")]
    command += [f"options.parquet.file={data}", f"options.parquet.grader={functions}"]
    with subprocess.Popen([*command, "grader.reward_s=3600"], start_new_session=True) as run:
        try:
            text = wait_until(
                lambda: started.read_text() if started.is_file() else "", 120, "the function hangs"
            )
            child = psutil.Process(int(text))
            run.send_signal(number)
            run.wait(scale_deadline(60))
            assert wait_until_ended([child], scale_deadline(60)) == []
        finally:
            run.kill()


def test_a_function_that_says_it_could_not_grade_gives_no_reward(tmp_path, functions):
    data = write_gsm8k(tmp_path / "val.parquet", ["1", "2"])
    answers = write_answers(tmp_path / "a.jsonl", ["1", "x"])
    grader = f"options.parquet.grader={functions}:ungraded"
    _, task, verdicts = evaluate(tmp_path / "o", data, answers, grader, expected=3)
    assert verdicts["row-1"]["reason"] == "the judge is away" and task["pass@1"]["value"] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["grader={folder}/nowhere.py:f"], "No such file"),
        (["grader={folder}"], "Is a directory"),
        (["grader={functions}:absent"], "object_name='absent'"),
        (["grader=pkg://no.such.module:f"], "No module named 'no'"),
        (["grader=pkg://verl.utils.reward_score:default_compute_score"], "name 'verl'"),
        (["grader={functions}:always_raises"], "ZeroDivisionError: of no use"),
        (["grader={functions}:other_signature"], "unexpected keyword argument 'data_source'"),
        (["grader={functions}:returns_text"], "returned 'good'"),
        (["grader={functions}:NUMBER"], "not callable"),
        (["grader={folder}/broken.py"], "SyntaxError"),
        (["grader=maht"], "did you mean math?"),
        (["grader=verl", "reward_kwargs.x=1"], "reward_kwargs"),
        (["grader=math", "source=taco"], "options.parquet.source"),
        (["source=tacco"], "options.parquet.source='tacco'"),
        (["grader=verl", "run_config={folder}/run.yaml"], "remove one"),
        (["reward_kwargs={{a: 1}}", "run_config={folder}/run.yaml"], "reward_kwargs is set"),
        (["run_config={folder}/nowhere.yaml"], "nowhere.yaml"),
        (["run_config={folder}/list.yaml"], "not a configuration"),
        (["run_config={folder}/other.yaml"], "no section reward"),
        (["run_config={folder}/model.yaml"], "reward.reward_model.enable"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_before_generation(
    tmp_path, functions, settings, message
):
    (tmp_path / "broken.py").write_text("def compute_score(:\n")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "other.yaml").write_text("a: 1")
    (tmp_path / "model.yaml").write_text("reward: {reward_model: {enable: true}}")
    data = write_gsm8k(tmp_path / "val.parquet", ["1"])
    named = [f"options.parquet.{s.format(folder=tmp_path, functions=functions)}" for s in settings]
    shown, _, _ = evaluate(tmp_path / "out", data, "/nowhere/model", *named, expected=2)
    assert message in shown and "options.parquet." in shown and shown.count("\n") == 1
    # The watcher says the same at once, before there is a checkpoint.
    words = ["eval-watch", str(tmp_path / "run"), "--output", str(tmp_path / "w")]
    run = CliRunner().invoke(app, [*words, f"options.parquet.file={data}", *named])
    assert run.exit_code == 2 and message in run.output and "Traceback" not in run.output


def test_a_function_that_changed_does_not_mix_its_verdicts(tmp_path, functions):
    data = write_gsm8k(tmp_path / "val.parquet", ["1"])
    answers = write_answers(tmp_path / "a.jsonl", ["1"])
    grader = f"options.parquet.grader={functions}"
    evaluate(tmp_path / "out", data, answers, grader)
    functions.write_text(FUNCTIONS.replace("solution_str.endswith(ground_truth)", "0.0", 1))
    arguments = ["eval", "--tasks", "parquet", "--n", "1", "--output", str(tmp_path / "out")]
    arguments += ["--model", str(answers), f"options.parquet.file={data}", grader]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2 and "data:" in run.output


def test_mean_rewards_are_compared_as_such(tmp_path, functions):
    data = write_gsm8k(tmp_path / "val.parquet", TRUTHS)
    grader = f"options.parquet.grader={functions}:shaped"
    for name, responses in {"before": ["x"] * 5, "after": TRUTHS}.items():
        answers = write_answers(tmp_path / f"{name}.jsonl", responses)
        evaluate(tmp_path / name, data, answers, grader)
    [row] = compare_folders(tmp_path / "before", tmp_path / "after")
    assert row["measure"] == "mean reward" and row["value"] == 3.0 and row["better"] == 5
    run = CliRunner().invoke(
        app, ["eval-compare", *(str(tmp_path / n) for n in ("before", "after"))]
    )
    assert run.exit_code == 0 and "+3.000" in run.output


def test_the_watchers_table_and_metrics_hold_mean_rewards():
    reward = {"value": 1.5, "low": 1.0, "high": 2.0}
    counts = {"samples": 4, "failed": 0, "truncated": 0, "mean_tokens": 1.0, "caveats": []}
    task = {"pass@1": None, "mean_reward": reward, **counts}
    row = {"step": 1, "weights": None, "tasks": {"parquet": task}}
    older = {"pass@1": reward, **counts}
    assert make_metrics(row)["eval/parquet/mean_reward/value"] == 1.5
    assert make_metrics({"step": 1, "tasks": {"a": older}})["eval/a/pass@1/value"] == 1.5
    table = make_checkpoint_table([row])
    assert "mean reward 1.500 [1.000, 2.000] *" in list(table.columns[2].cells)


def test_the_best_checkpoint_has_the_largest_mean_reward_if_one_has_no_pass_at_1():
    scores = [(0.9, 0.2), (None, 0.5), (0.3, None)]
    rows = []
    for step, values in enumerate(scores, 1):
        estimates = [
            None if value is None else {"value": value, "low": None, "high": None}
            for value in values
        ]
        task = dict(zip(("pass@1", "mean_reward"), estimates, strict=True), caveats=[])
        rows.append({"step": step, "weights": None, "tasks": {"parquet": task}})
    cells = list(make_checkpoint_table(rows).columns[2].cells)
    assert cells == ["90.0 %, mean reward 0.200", "mean reward 0.500 *", "30.0 %"]
    assert next(iter(make_checkpoint_table([rows[0], rows[2]]).columns[2].cells)).endswith(" *")


def test_the_runs_own_configuration_names_the_reward(tmp_path, functions, monkeypatch):
    monkeypatch.setattr("verl_pipeline.evaluation.checkpoint_watcher.POLL_INTERVAL_S", 0.1)
    data = write_gsm8k(tmp_path / "val.parquet", TRUTHS)
    answers = write_answers(tmp_path / "a.jsonl", TRUTHS)
    folder = tmp_path / "elsewhere/outputs/2026/.hydra"
    folder.mkdir(parents=True)
    (folder / "hydra.yaml").write_text(f"hydra: {{runtime: {{cwd: {tmp_path}}}}}")
    config = {
        "bonus": 2,
        "trainer": {"project_name": "run", "default_local_dir": "${trainer.project_name}/c"},
        "reward": {
            "custom_reward_function": {
                "path": functions.name,
                "name": "shaped",
                "reward_kwargs": {"bonus": "${bonus}"},
            },
            "reward_manager": {"name": "dapo"},
        },
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    setting = f"options.parquet.run_config={folder / 'config.yaml'}"
    shown, task, _ = evaluate(tmp_path / "out", data, answers, setting)
    assert task["mean_reward"]["value"] == 4.0 and "reward manager dapo" in shown
    words = ["eval-watch", str(tmp_path / "run/c"), "--output", str(tmp_path / "w")]
    words += ["--idle-s", "1", f"options.parquet.file={data}"]
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert "the run's configuration was not found" in found.output and found.exit_code == 2
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/outputs/x").mkdir()
    folder.parent.rename(tmp_path / "elsewhere/outputs/x/y")
    found = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert "graded by the reward of the run's configuration outputs/x/y" in found.output
    functions.write_text("")
    found = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert "object_name='shaped'" in found.output and found.exit_code == 2
    words.append("options={parquet: {grader: verl}}")
    found = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert "a checkpoint has not come" in found.output, "the user's grader goes first"


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_configuration_in_the_checkpoint_folder_is_found(tmp_path, functions, is_absolute):
    checkpoints = tmp_path / "checkpoints/project/run"
    checkpoints.mkdir(parents=True)
    named = checkpoints if is_absolute else checkpoints.relative_to(tmp_path)
    path = functions if is_absolute else functions.name
    for number, name in enumerate(["absent", "shaped"], 1):
        file = checkpoints / f"configuration-{number}.yaml"
        file.write_text(
            f"trainer: {{default_local_dir: {named}}}\n"
            f"reward: {{custom_reward_function: {{path: {path}, name: {name}}}}}\n"
        )
        os.utime(file, (number, number))
    assert find_run_config(checkpoints) == file
    assert read_run_reward(file).path == str(functions) and read_run_reward(file).name == "shaped"
