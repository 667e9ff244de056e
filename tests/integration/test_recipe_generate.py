"""The command as users run it: killed in the middle, then rerun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.testing.tiny_run import write_model

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
PROBLEMS = 8
GENERATOR = """
def generate_inputs(rng):
    return {"values": [rng.randint(-9, 9) for _ in range(rng.randint(1, 6))], "least": 2}
"""
_WORDS = "lantern bridge harbour sparrow ledger orchard compass turbine".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with (folder / "codeio.jsonl").open("w") as file:
        for number, word in enumerate(_WORDS[:PROBLEMS]):
            row = {
                "task_description": f"Work out the {word} figure of a list beyond the least value.",
                "input_output_spec": "Input:\n  `values`\n  `least`\n\nOutput:\n  `return` (int)",
                "code_sample": "def main_solution(values, least):\n"
                f"    return {number + 2} * sum(v for v in values if v > least)\n",
                "input_generator": GENERATOR,
            }
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def start_generate(data: Path, model: Path, output: Path) -> subprocess.Popen[str]:
    settings = [
        "methods=[codeio]",
        "hub=false",
        "grader.workers=1",
        f"prepare.model={model}",
        "prepare.length.max_tokens=6000",
        "prepare.contamination.tasks=[humaneval]",
    ]
    command = [sys.executable, "-m", "verl_pipeline.recipes.deepcoder.generate", *settings]
    return subprocess.Popen(
        [*command, "--data", str(data), "--output", str(output)],
        cwd=ROOT,
        env={**os.environ},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run_to_end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=scale_deadline(TIMEOUT_S))
    assert process.returncode == 0, output
    return output


def read_results(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_killed_generation_ends_as_an_uninterrupted_one(data, model, tmp_path):
    built = tmp_path / "killed" / "work" / "built-codeio.jsonl"
    process = start_generate(data, model, tmp_path / "killed")
    wait_until(
        lambda: built.is_file() and built.read_bytes().count(b"\n") >= 2, TIMEOUT_S, "two results"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=scale_deadline(TIMEOUT_S))
    stored = built.read_bytes()
    assert 2 <= stored.count(b"\n") < PROBLEMS

    run_to_end(start_generate(data, model, tmp_path / "killed"))
    run_to_end(start_generate(data, model, tmp_path / "whole"))

    assert built.read_bytes().startswith(stored[: stored.rfind(b"\n") + 1])
    killed, whole = (read_results(tmp_path / name) for name in ("killed", "whole"))
    for name in ("train.parquet", "removed.jsonl", "problems.jsonl", "generation.json"):
        assert killed[name] == whole[name], name
