"""The command as a process: dry runs of every shipped profile, and exit codes for wrong input."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python

pytestmark = pytest.mark.medium


def run_train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    command = [find_python(), "-m", "verl_pipeline.recipes.deepcoder.train", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=scale_deadline(240),
    )


def read_documents(run: subprocess.CompletedProcess) -> list[dict]:
    assert run.returncode == 0, run.stderr[-3000:]
    return list(yaml.safe_load_all(run.stdout))


def test_the_command_lines_of_the_original_resolve(tmp_path):
    run = run_train("--hardware=32xH100", "--dry-run", cwd=tmp_path)
    short, long = read_documents(run)
    assert "[validate_config] All configuration checks passed" in run.stderr
    for config, batch, mini, response, tokens, last in (
        (short, 32, 16, 16384, 20000, 180),
        (long, 128, 64, 32768, 24000, 650),
    ):
        actor, rollout = (
            config["actor_rollout_ref"]["actor"],
            config["actor_rollout_ref"]["rollout"],
        )
        assert (config["data"]["train_batch_size"], actor["ppo_mini_batch_size"], rollout["n"]) == (
            batch,
            mini,
            8,
        )
        assert (config["data"]["max_response_length"], actor["ppo_max_token_len_per_gpu"]) == (
            response,
            tokens,
        )
        assert config["trainer"]["total_training_steps"] == last
        assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["optim"]["lr"]) == (
            0.2,
            0.28,
            1e-6,
        )
        assert (actor["ulysses_sequence_parallel_size"], rollout["tensor_model_parallel_size"]) == (
            2,
            2,
        )
        assert config["reward"]["custom_reward_function"]["reward_kwargs"] == {
            "prefix": "<think>\n"
        }
        train_pool = config["trainer"]["nnodes"] * config["trainer"]["n_gpus_per_node"]
        assert train_pool + rollout["nnodes"] * rollout["n_gpus_per_node"] == 32
    lines = run.stdout.splitlines()
    assert any(
        line.startswith("# ") and "-m verl_pipeline.main +grpo_plus=ours" in line for line in lines
    )
    # Checks that are impossible on this machine are listed.
    assert any(line.startswith("# not checked: data") for line in lines)


def test_a_shell_understands_the_printed_command(tmp_path):
    run = run_train("--hardware=8xA100", "--dry-run", "reproduce=released", cwd=tmp_path)
    (config,) = read_documents(run)
    assert config["trainer"]["v1"]["one_off_pipeline"]["filters"][1] == {
        "name": "overlong",
        "mode": "deepcoder",
    }
    assert (
        config["trainer"]["n_gpus_per_node"],
        config["actor_rollout_ref"]["rollout"]["n_gpus_per_node"],
    ) == (4, 4)
    line = next(line[2:] for line in run.stdout.splitlines() if "-m verl_pipeline.main" in line)
    arguments = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True
    ).stdout.split("\0")
    assert '+reward.custom_reward_function.reward_kwargs.prefix="<think>\n"' in arguments


def test_the_cpu_profile_resolves(tmp_path):
    short, long = read_documents(run_train("--dry-run", cwd=tmp_path))
    assert [config["data"]["max_response_length"] for config in (short, long)] == [64, 128]
    assert (
        short["trainer"]["device"],
        short["algorithm"]["rollout_correction"]["bypass_mode"],
    ) == ("cpu", True)


def test_one_stage_can_be_shown(write_run_files, tmp_path):
    stages, hardware = write_run_files()
    files = [f"--stages={stages}", f"--hardware={hardware}"]
    (config,) = read_documents(run_train(*files, "--stage=second", "--dry-run", cwd=tmp_path))
    assert config["data"]["max_response_length"] == 16
    assert not (tmp_path / "outputs").exists()


def test_wrong_input_ends_with_one_line_and_exit_code_2(write_run_files, tmp_path):
    stages, hardware = write_run_files(run={"model": "quikstart/none"})
    files = [f"--stages={stages}", f"--hardware={hardware}", f"--output={tmp_path / 'run'}"]
    for arguments, message in (
        (["--hardware=32xH1000"], "did you mean 32xH100?"),
        ([*files, "--stage=frist"], "--stage frist: unknown; did you mean first?"),
        ([*files, "--reproduce=our"], "reproduce=our: unknown; did you mean ours?"),
        ([*files, "data.train_batch_sze=3"], "data.train_batch_sze"),
        (files, "actor_rollout_ref.model.path=quikstart/none: not in the hub"),
    ):
        run = run_train(*arguments, cwd=tmp_path)
        last = run.stderr.strip().splitlines()[-1]
        assert run.returncode == 2, run.stderr
        assert last.startswith("error: ") and message in last and "Traceback" not in run.stderr


def test_a_single_stage_needs_the_stages_before_it(write_run_files, tmp_path):
    stages, hardware = write_run_files()
    output = tmp_path / "run"
    run = run_train(
        f"--stages={stages}",
        f"--hardware={hardware}",
        f"--output={output}",
        "--stage=second",
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "--stage second: stage first before it is not done" in run.stderr


@pytest.mark.parametrize("content", ["{}", '{"version": 0, "identity": {}, "stages": {}}'])
def test_a_state_file_with_other_content_is_refused(write_run_files, tmp_path, content):
    stages, hardware = write_run_files()
    output = tmp_path / "run"
    output.mkdir()
    (output / "stages.json").write_text(content)
    run = run_train(
        f"--stages={stages}", f"--hardware={hardware}", f"--output={output}", cwd=tmp_path
    )
    assert run.returncode == 2 and "choose another --output" in run.stderr
    assert json.loads((output / "stages.json").read_text()) == json.loads(content)
