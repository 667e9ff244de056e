"""What is kept of a run, and what its own text is."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.testing import runs, tiny_run

# A run that logs one whole step and half of another, records two trajectories, and leaves a file.
PROGRAM = """
import os, sys
from pathlib import Path
logs = Path(os.environ["TMPDIR"]) / "ray" / "session_2026_1" / "logs"
logs.mkdir(parents=True)
(logs / "worker-1.err").write_text("the cause")
(Path(os.environ["TMPDIR"]) / "left").write_text("")
folder = Path(os.environ["VERL_PIPELINE_TRAJECTORIES"])
folder.mkdir()
for name in "ab":
    (folder / f"{name}.jsonl").write_text('{"step": 1}\\n{"st')
Path(os.environ["VERL_FILE_LOGGER_PATH"]).write_text('{"step": 1, "data": {"x": 2.0}}\\n{"step": 2')
print(os.getcwd(), *sys.argv[1:])
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "program"


@pytest.mark.parametrize("code", [0, 1])
def test_rays_logs_are_kept_of_a_run_that_fails(tmp_path, program, code):
    folder = tmp_path / "run"
    run = runs.run_training(folder, [str(code)], module=program)
    assert run.returncode == code, run.output
    assert run.metrics == {1: {"x": 2.0}} and run.trajectories == [{"step": 1}] * 2
    assert [Path(path).name for path in run.leftovers] == ["left"] and run.survivors == []
    kept = folder / runs.RAY_LOGS / "worker-1.err"
    assert kept.exists() == bool(code) and (not code or kept.read_text() == "the cause")
    assert not runs.name_temporary_folder(folder).exists()
    assert run.output.split() == [str(folder), str(code), "trainer.logger=[console,file]"]


def test_a_run_may_start_in_the_folder_of_its_user(tmp_path, program):
    process = runs.start_run(tmp_path / "run", ["0"], module=program, folder=tmp_path)
    process.wait(60)
    run = runs.collect_run(tmp_path / "run", process, [])
    assert run.output.split()[0] == str(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    sizes = tiny_run.ModelSizes(layers=4, heads=6, head_size=64, vocabulary_divisor=24)
    folder = tiny_run.write_model(tmp_path_factory.mktemp("model"), sizes)
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] % 24 == 0 and config["hidden_size"] == 384
    assert (config["num_hidden_layers"], config["num_key_value_heads"]) == (4, 6)
    loaded = AutoTokenizer.from_pretrained(folder)
    # verl masks a difference in vLLM only.
    assert len(loaded) == config["vocab_size"]
    return loaded


@given(tokens=st.lists(st.integers(0, 71), max_size=40))
def test_text_is_decoded_as_the_tokenizer_does(tokenizer, tokens):
    assert tiny_run.decode(tokens) == tokenizer.decode(tokens, skip_special_tokens=True)
