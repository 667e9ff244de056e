"""The emulated engine takes the planner's time and returns what a real engine's callers read."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from transformers import AutoTokenizer

from tests.helpers.emulated_runs import make_run
from verl_pipeline.emulated.cluster import VARIABLE
from verl_pipeline.emulated.identity import make_prompt
from verl_pipeline.emulated.journal import read_journal
from verl_pipeline.testing import tiny_run
from verl_pipeline.verl_adapter.emulated import plugin

SCALE = 1e6


@pytest.fixture
def run(tmp_path, monkeypatch):
    run = make_run(tmp_path, time_scale=SCALE, profile={"training__log_prob_s": 10.0})
    run.write(tmp_path / "cluster.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cluster.json"))
    plugin.load_run.cache_clear()
    yield run
    plugin.load_run.cache_clear()


@pytest.fixture
def model(tmp_path):
    path = tiny_run.write_model(tmp_path / "model")
    return SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(path))


def make_batch(tokenizer):
    """Batch 1: rows 3 to 5, two samples each."""
    alphabet = plugin.read_alphabet(tokenizer)
    rows = []
    for row in range(3, 6):
        message = [{"role": "user", "content": make_prompt(row)}]
        prompt = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, return_dict=False
        )
        rows += [torch.tensor(prompt + alphabet.make_response(sample, 4)) for sample in range(2)]
    ids = torch.nested.nested_tensor(rows, layout=torch.jagged)
    return TensorDict({"input_ids": ids}, batch_size=len(rows))


def test_passes_take_the_planners_time(run, model):
    from verl_pipeline.verl_adapter.emulated.training_engine import WEIGHT, EmulatedEngine

    engine = EmulatedEngine(model, None, None, None)
    batch = make_batch(model.tokenizer)
    times = run.open_clock().times
    for trajectory in range(6):
        times.rewarded[1, trajectory] = 500.0 + trajectory
    with engine.eval_mode():
        output = engine.infer_batch(batch)
    log_probs = output["model_output"]["log_probs"]
    assert log_probs.shape[0] == 6 and log_probs.offsets().equal(batch["input_ids"].offsets())
    with engine.train_mode():
        output = engine.train_batch(batch, loss_function=None)
    assert output["metrics"]["grad_norm"] == 0.0
    tokens = float(run.workload.tokens[1])
    profile = run.cluster
    expected = profile.training.compute_seconds(tokens, profile.sampling.mean_tokens, 2)
    entries = {entry.kind: entry for entry in read_journal(run.journal)}
    spent = {kind: entry.end - entry.start for kind, entry in entries.items()}
    assert sum(spent.values()) == pytest.approx(expected)
    assert spent["log_prob"] == pytest.approx(expected / 4)
    # After the last reward; then one after the other.
    assert 505.0 <= entries["log_prob"].start < entries["log_prob"].end
    assert entries["log_prob"].end <= entries["update"].start
    assert times.driver_time == entries["update"].end
    weights, _config = engine.get_per_tensor_param()
    assert {name: float(tensor[0]) for name, tensor in weights} == {WEIGHT: 1.0}


def test_the_state_survives_a_checkpoint(run, model, tmp_path):
    from verl_pipeline.verl_adapter.emulated.training_engine import EmulatedEngine

    engine, other = (EmulatedEngine(model, None, None, None) for _ in range(2))
    for _ in range(3):
        engine.optimizer_step()
    engine.save_checkpoint(str(tmp_path / "checkpoint"))
    other.load_checkpoint(str(tmp_path / "checkpoint"))
    (_name, weight), *_rest = other.get_per_tensor_param()[0]
    assert weight.unique().tolist() == [3.0]
