"""Evaluation with real engines: vLLM offline, a vLLM server, and checkpoints of a training."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.training_run import check_clean, tail
from tests.helpers.warm_python import find_python
from verl_pipeline.evaluation.checkpoint_evaluation import make_metrics
from verl_pipeline.evaluation.engines.model_folder import hash_weights
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.processes import wait_until_ended
from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.verl_adapter.cpu.environment import CPU_ENVIRONMENT

pytestmark = pytest.mark.timeout(900)

ROWS, N = 6, 24
SAMPLING = [
    "engine.concurrency=8",
    "sampling.max_tokens=160",
    "sampling.temperature=1.0",
    "sampling.top_p=0.95",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A parquet task that is graded as mathematics; the model's answers are random text."""
    data = tiny_run.write_data(tmp_path_factory.mktemp("data") / "val.parquet", ROWS)
    return [
        "--tasks",
        "parquet",
        f"options.parquet.file={data}",
        "options.parquet.grader=math",
        *SAMPLING,
    ]


def make_command(*arguments, python: str = sys.executable) -> list[str]:
    return [python, "-m", "verl_pipeline.cli", "eval", *map(str, arguments)]


def evaluate(*arguments, expected: int = 0) -> str:
    command = make_command(*arguments, python=find_python())
    run = subprocess.run(command, capture_output=True, text=True, timeout=scale_deadline(600))
    assert run.returncode == expected, run.stdout + run.stderr
    return run.stdout + run.stderr


def read_samples(output: Path) -> dict:
    return {
        (row["id"], row["sample"]): row for row in read_records(output / "parquet/samples.jsonl")
    }


@pytest.mark.slow
def test_a_killed_evaluation_resumes_with_the_same_samples_and_result(tmp_path, model, settings):
    words = ["--model", model, "--n", N, *settings]
    evaluate(*words, "--output", tmp_path / "whole")
    killed = subprocess.Popen(
        make_command(*words, "--output", tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = tmp_path / "killed/parquet/samples.jsonl"

    def has_samples():
        assert killed.poll() is None
        return path.is_file() and path.read_bytes().count(b"\n") >= 10

    wait_until(has_samples, 300, "ten samples")
    below = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    assert wait_until_ended(below, scale_deadline(10)) == [], "no child process survives"
    before = read_samples(tmp_path / "killed")
    assert 10 <= len(before) < ROWS * N
    evaluate(*words, "--output", tmp_path / "killed")
    assert sum(1 for _row in read_records(path)) == ROWS * N, "no sample is drawn twice"
    assert before.items() <= read_samples(tmp_path / "killed").items()
    whole, again = read_samples(tmp_path / "whole"), read_samples(tmp_path / "killed")
    assert {key: row["response"] for key, row in whole.items()} == {
        key: row["response"] for key, row in again.items()
    }
    assert len({row["response"] for row in whole.values()}) > ROWS * N / 2, (
        "samples differ from each other"
    )
    results = [read_results(tmp_path / name) for name in ("whole", "killed")]
    scores = [
        [(task["pass@1"], task["verdicts"], task["counts"]) for task in result["tasks"]]
        for result in results
    ]
    assert scores[0] == scores[1]
    assert results[0]["model"]["weights"] == hash_weights(model)
    assert all(row["mean_logprob"] < 0 for row in whole.values())


@pytest.mark.slow
def test_a_server_yields_the_same_samples_as_the_offline_engine(tmp_path, model, settings):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (
        "--dtype float32 --max-model-len 256 --enforce-eager --no-enable-chunked-prefill".split()
    )
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vllm.entrypoints.openai.api_server",
                "--model",
                str(model),
                "--port",
                str(port),
            ]
            + ["--served-model-name", "tiny", "--host", "127.0.0.1", *words],
            stdout=log,
            stderr=log,
            env={**os.environ, **CPU_ENVIRONMENT},
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/v1"
    try:

        def does_answer():
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                return True

        wait_until(does_answer, 300, "the server to answer")
        both = [
            *settings,
            "--tasks",
            "parquet,tests.helpers.small_task",
            "options.small.programs=false",
        ]
        served = [*both, "engine.kind=server", f"engine.url={url}"]
        evaluate("--model", "tiny", "--n", 2, "--output", tmp_path / "served", *served)
        assert "serves tiny" in evaluate(
            "--model", "other", "--output", tmp_path / "other", *served, expected=2
        )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(scale_deadline(60))
    evaluate("--model", model, "--n", 2, "--output", tmp_path / "offline", *both)
    ours, theirs = read_samples(tmp_path / "offline"), read_samples(tmp_path / "served")
    assert ours.keys() == theirs.keys()
    assert len(read_results(tmp_path / "served")["tasks"]) == 2
    equal = [key for key, row in ours.items() if theirs[key]["response"] == row["response"]]
    # The two compute attention in other chunks: where their log-probs, which differ by 1e-4, decide
    # a token, a response may part. With other seeds, hardly one of the 12 would be equal.
    assert len(ours) - len(equal) <= 1
    for key in equal:
        assert theirs[key]["tokens"] == ours[key]["tokens"]
        assert theirs[key]["mean_logprob"] == pytest.approx(ours[key]["mean_logprob"], abs=1e-3)
    assert read_results(tmp_path / "served")["model"]["weights"] is None


@pytest.mark.slow
def test_checkpoints_are_evaluated_beside_the_training(tmp_path, model, settings):
    run, output = tmp_path / "run", tmp_path / "watched"
    words = ["--output", str(output), "--last-step", "4", "--trackers", "tensorboard", *settings]
    environment = {**os.environ, "TENSORBOARD_DIR": str(tmp_path / "tensorboard")}
    with open(tmp_path / "watch.log", "w") as log:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "verl_pipeline.cli", "eval-watch", str(run), *words],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        trained = runs.run_training(
            tmp_path / "training",
            [
                *tiny_run.make_overrides(tmp_path / "tiny"),
                "actor_rollout_ref.rollout.nnodes=1",
                "trainer.total_training_steps=4",
                "trainer.save_freq=2",
                f"trainer.default_local_dir={run}",
            ],
        )
        assert trained.returncode == 0, tail(trained)
        check_clean(trained)
        assert watcher.wait(300) == 0, (tmp_path / "watch.log").read_text()
    finally:
        if watcher.poll() is None:
            watcher.terminate()
            watcher.wait(60)
    rows = json.loads((output / "checkpoints.json").read_text())
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["weights"] != rows[1]["weights"], "each checkpoint has its own weights"
    for row in rows:
        merged = tmp_path / f"merged-{row['step']}"
        actor = run / f"global_step_{row['step']}" / "actor"
        merge = [
            sys.executable,
            "-m",
            "verl.model_merger",
            "merge",
            "--backend",
            "fsdp",
            "--local_dir",
            str(actor),
        ]
        subprocess.run([*merge, "--target_dir", str(merged)], check=True, capture_output=True)
        assert hash_weights(merged) == row["weights"]
        assert (
            row["tasks"]["parquet"]["split"] == "validation"
            and row["tasks"]["parquet"]["samples"] == ROWS * 4
        )
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [2, 4]
    assert metrics[0]["data"].keys() == make_metrics(rows[0]).keys()
    assert any((tmp_path / "tensorboard").iterdir())
    assert not list(output.glob("step_*/model")), "merged weights are removed"
