"""`verl-pipeline plan`: what it prints and writes, and its answers to broken inputs."""

import json

import pytest
from typer.testing import CliRunner

from tests.helpers.broken_inputs import broken_arguments, broken_contents
from tests.helpers.command_fuzz import (
    FuzzedCommand,
    check_answer,
    check_answers,
    efforts,
    run_command,
)
from tests.helpers.damaged_files import damage_file, each_damage
from tests.helpers.made_up_run import write_run
from tests.helpers.planner_cases import make_content
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.cli import app
from verl_pipeline.planner.profile_reader import list_profiles
from verl_pipeline.report.plan_page import PAGE_MARK

PROFILE = "profile.yaml"
PLAN = FuzzedCommand(
    name="plan",
    module="verl_pipeline.cli",
    arguments=("plan", "--profile", PROFILE, "--split", "2:2", "--seeds", "1"),
    files={
        PROFILE: make_content(
            description="small",
            gpu="none",
            gpus_per_node=4,
            validation={"every_steps": 10, "seconds": 5.0},
            sources={"gpus": "assumed"},
        )
    },
    exit_codes=frozenset({0, 2}),
    settings_file=PROFILE,
    preload=("verl_pipeline.planner.plan_report", "verl_pipeline.planning.sources"),
)
OPTIONS = [
    *(
        "--profile",
        "--gpus",
        "--split",
        "--price",
        "--seeds",
        "--json",
        "--run",
        "--scaling-run",
        "--model",
        "--gpu",
    ),
    *(
        "--tensor-parallel",
        "--mfu",
        "--prompts",
        "--samples",
        "--response-mean",
        "--response-limit",
    ),
    *("--response-sigma", "--prompt-mean", "--reward-s"),
]
CONFIG = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}


def invoke(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / PROFILE
    path.write_text(json.dumps(PLAN.files[PROFILE]))
    return path


def test_the_answer_comes_first_and_the_file_has_the_numbers(profile, tmp_path):
    output = tmp_path / "plan.json"
    done = invoke("--profile", profile, "--seeds", 1, "--price", 3, "--json", output)
    assert done.exit_code == 0, done.output
    content = json.loads(output.read_text())
    assert done.stdout.splitlines()[0] == content["answer"]["sentence"]
    assert all(line in done.stdout for line in content["answer"]["overrides"])
    assert {plan["schedule"] for plan in content["plans"]} == {
        *("sync", "one_step_off", "drained", "rolling", "in_flight")
    }
    assert all(plan["per_100_steps"]["money"] > 0 for plan in content["plans"])
    # Again, over its own file.
    assert invoke("--profile", profile, "--seeds", 1, "--json", output).exit_code == 0


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_foreign_file_or_the_profile_is_not_overwritten(profile, tmp_path, option):
    foreign = tmp_path / "notes.json"
    foreign.write_text('{"mine": 1}')
    report = tmp_path / "report.html"
    report.write_text('<meta name="generator" content="verl-pipeline report">')
    for output in (foreign, report, profile):
        before = output.read_text()
        done = invoke("--profile", profile, option, output)
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
        assert output.read_text() == before and not done.stdout


def test_the_page_is_written_again_over_its_own_file_only(profile, tmp_path):
    page, output, new = (tmp_path / name for name in ("plan.html", "plan.json", "new"))
    page.write_text(PAGE_MARK)
    arguments = ["--profile", profile, "--seeds", 1, "--split", "2:2"]
    assert invoke(*arguments, "--html", page, "--json", output).exit_code == 0
    written = page.read_text()
    assert "</html>" in written and json.loads(output.read_text())["map"]
    for other in (["--json", page], ["--html", output], ["--json", new, "--html", new]):
        done = invoke(*arguments, *other)
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
    assert page.read_text() == written and json.loads(output.read_text())["planner"]
    assert not new.exists()


def test_a_run_is_planned_beside_its_own_step(tmp_path):
    write_run(tmp_path / "run", MadeUpRun(mode="sync", steps=8, trainer_devices=4))
    output = tmp_path / "plan.json"
    done = invoke("--run", tmp_path / "run", "--seeds", 1, "--json", output)
    assert done.exit_code == 0, done.output
    assert "The run (sync) took" in done.stdout and "Keep in mind:" in done.stdout
    content = json.loads(output.read_text())
    assert content["run"]["simulated_s"] == pytest.approx(content["run"]["measured_s"], rel=0.1)
    assert len(content["notes"]) >= 3 and all(note in done.stdout for note in content["notes"])


def test_runs_on_other_devices_give_the_scaling(tmp_path):
    for count in (4, 2, 1):
        run = MadeUpRun(mode="sync", steps=6, trainer_devices=count)
        write_run(tmp_path / str(count), run)
    others = ["--scaling-run", tmp_path / "2", "--scaling-run", tmp_path / "1"]
    done = invoke("--run", tmp_path / "4", *others, "--seeds", 1, "--split", "2:2")
    assert done.exit_code == 0, done.output
    assert "to the power 1.00: an update took" in done.stdout.replace("\n", " ")
    done = invoke("--run", tmp_path / "4", "--scaling-run", tmp_path / "4")
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
    assert "trains on 4 devices" in done.stderr


def test_a_model_on_gpus_is_planned_and_says_what_is_assumed(profile, tmp_path):
    model = tmp_path / "tiny-model" / "config.json"
    model.parent.mkdir()
    model.write_text(json.dumps(CONFIG))
    output = tmp_path / "plan.json"
    arguments = ["--model", model.parent, "--gpu", "H100", "--gpus", 8, "--profile", profile]
    done = invoke(*arguments, "--seeds", 1, "--json", output, "--prompts", 5)
    assert done.exit_code == 0, done.output
    assert "tiny-model" in done.stdout and "Nothing here is measured" in done.stdout
    content = json.loads(output.read_text())
    assert content["gpus"] == 8 and content["run"] is None
    assert "5 prompts x 2" in " ".join(content["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "run", "--profile", "p"], "--run and --profile"),
        (["--gpu", "h100"], "only --model takes it"),
        (["--mfu", "0.4"], "only --model takes it"),
        (["--model", "m"], "--model needs --gpu"),
        (["--model", "m", "--gpu", "b300"], "--gpu b300: unknown"),
        (["--model", "m", "--gpu", "a100"], "--model m: no such file"),
        (["--run", "nothing"], "nothing: no such folder"),
        (["--scaling-run", "a"], "--scaling-run a: only --run takes it"),
        (
            ["--run", "a", "--scaling-run", "b", "--model", "m", "--gpu", "h100"],
            "--scaling-run b: --model replaces",
        ),
    ],
)
def test_options_that_contradict_or_name_nothing_are_one_line(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
    assert words in done.stderr


def test_the_work_can_be_changed(profile, tmp_path):
    output = tmp_path / "plan.json"
    steps = []
    for changes in ([], ["--response-mean", 400, "--reward-s", 20]):
        arguments = ["--profile", profile, "--split", "2:2", "--seeds", 1, "--json", output]
        assert invoke(*arguments, *changes).exit_code == 0
        steps.append(json.loads(output.read_text())["plans"][0]["step_s"])
    assert steps[1] > steps[0] + 18


def test_more_gpus_are_planned_for(profile, tmp_path):
    output = tmp_path / "plan.json"
    assert invoke("--profile", profile, "--gpus", 2, "--seeds", 1, "--json", output).exit_code == 0
    assert json.loads(output.read_text())["gpus"] == 2


def test_profiles_are_listed_and_named():
    done = invoke("--list")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list_profiles()
    done = invoke("--profile", "nothing")
    assert done.exit_code == 2 and all(name in done.stderr for name in list_profiles())
    assert done.stderr.startswith("--profile nothing")


@pytest.mark.parametrize("split", ["3:2", "a", "5:5"])
def test_an_impossible_split_is_one_line(profile, split):
    done = invoke("--profile", profile, "--split", split)
    assert (
        done.exit_code == 2
        and "possible: 1:3, 2:2, 3:1" in done.stderr.replace("\n", " ")
        or ("as 4:12" in done.stderr)
    )


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "a"])
def test_a_price_that_is_none_is_refused(profile, price):
    done = invoke("--profile", profile, "--price", price)
    assert done.exit_code == 2 and "--price" in done.stderr


@pytest.mark.medium
def test_a_good_profile_is_planned():
    assert run_command(PLAN).exit_code == 0


@pytest.mark.medium
@each_damage
def test_damaged_file(damage):
    check_answer(PLAN, damage_file(PROFILE, damage))


@pytest.mark.medium
@efforts(quick=2, many=300)
def test_broken_contents(effort):
    check_answers(PLAN, broken_contents(PLAN, PROFILE), effort)


@pytest.mark.medium
@efforts(quick=2, many=100)
def test_broken_arguments(effort):
    check_answers(PLAN, broken_arguments(PLAN, OPTIONS), effort)
