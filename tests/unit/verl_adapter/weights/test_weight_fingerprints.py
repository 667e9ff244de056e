"""When a weight sync is compared, what is logged of it, and who is named."""

import pytest
import torch
from omegaconf import OmegaConf

from tests.helpers.sharded_model import Shape, hold, make_weights
from verl_pipeline.trainer.pipeline_config import WeightCheck
from verl_pipeline.verl_adapter.weights import replica_reading, weight_fingerprints
from verl_pipeline.verl_adapter.weights.held_weights import read_model
from verl_pipeline.verl_adapter.weights.observed_sender import ObservedSender
from verl_pipeline.verl_adapter.weights.weight_extension import EXTENSION
from verl_pipeline.verl_adapter.weights.weight_fingerprints import FingerprintCheck
from verl_pipeline.weight_sync.comparison import WeightsDiffer

SHAPE = Shape(2, 4, 2, 4, 8, 11, 1)


class Engine(ObservedSender):
    is_master = True


class Workers:
    """One actor rank whose engine sends ``weights``."""

    world_size = 1

    def __init__(self, weights):
        self.engine = Engine()
        self.weights = weights

    def execute_checkpoint_engine(self, names, *arguments):
        return [getattr(self.engine, names[0])(*(argument[0] for argument in arguments))]

    def send(self):
        return dict(self.engine.observe(iter(self.weights.items())))


class Replica:
    """A replica whose server's closures run here, and whose ranks hold ``weights``."""

    def __init__(self, weights):
        self.servers = [self]
        self.weights = weights
        self.polls = 0

    class Call:
        def __init__(self, replica):
            self.replica = replica

        async def remote(self, function, *arguments):
            if function is replica_reading._begin_reading:
                self.replica.asked = arguments
                return True
            self.replica.polls += 1
            if self.replica.polls % 3:
                return None
            names, dtype = self.replica.asked
            models = [hold(self.replica.weights, SHAPE, rank) for rank in range(SHAPE.ranks)]
            return [read_model(model, names, getattr(torch, dtype), False) for model in models]

    @property
    def __ray_call__(self):
        return Replica.Call(self)


@pytest.fixture(autouse=True)
def _answers_are_there(monkeypatch):
    monkeypatch.setattr(weight_fingerprints.ray, "get", lambda answers: answers)


def make_check(workers, replicas, *, syncs=2, engine=Engine, name="vllm", extension=EXTENSION):
    rollout = {
        "name": name,
        "dtype": "bfloat16",
        "load_format": "dummy",
        "engine_kwargs": {"vllm": {"worker_extension_cls": extension}},
    }
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}})
    named = {f"rollout replica {rank}": replica for rank, replica in enumerate(replicas)}
    settings = WeightCheck(fingerprint_syncs=syncs, fingerprint_every=5)
    return FingerprintCheck(config, settings, workers, engine, named)


def run_sync(check, workers, version=0):
    check.begin(version)
    sent = workers.send()
    check.compare(version)
    return sent, check.take_metrics()


def test_the_first_syncs_are_compared_and_every_fifth_version():
    weights = make_weights(SHAPE, 1, torch.float32)
    held = {name: weight.bfloat16() for name, weight in weights.items()}
    workers = Workers(weights)
    check = make_check(workers, [Replica(held), Replica(held)])
    for version, count in enumerate([len(weights)] * 2 + [0, 0, 0, len(weights), 0]):
        sent, metrics = run_sync(check, workers, version)
        assert all(sent[name] is weights[name] for name in weights)
        assert metrics == {
            "pipeline/weights/checked_tensors": count,
            "pipeline/weights/unchecked_tensors": 0,
        }
        assert workers.engine._observed is None
    assert set(check.take_metrics().values()) == {0.0}


def test_the_replica_the_version_and_the_tensor_are_named():
    weights = make_weights(SHAPE, 1, torch.bfloat16)
    name = "model.layers.0.self_attn.v_proj.bias"
    workers = Workers(weights)
    check = make_check(workers, [Replica(weights), Replica(weights | {name: weights[name] * 2})])
    with pytest.raises(
        WeightsDiffer, match=rf"^rollout replica 1 does not hold v_7 .*: {name}: the trainer sent"
    ):
        run_sync(check, workers, 7)


@pytest.mark.parametrize(
    ("settings", "counted", "reason"),
    [
        ({"engine": object}, False, "the weight engine object does not tell what it sends"),
        ({"name": "sglang"}, True, "rollout.name=sglang: only vLLM tells what it holds"),
        ({"extension": "mine.Extension"}, True, "worker_extension_cls=mine.Extension: ours"),
    ],
)
def test_what_cannot_be_compared_is_said_once_and_never_counts(settings, counted, reason, capsys):
    weights = make_weights(SHAPE, 1, torch.bfloat16)
    workers = Workers(weights)
    check = make_check(workers, [Replica(weights)], **settings)
    # The sender tells once what it sends.
    for unchecked in (len(weights) if counted else None, 0, 0):
        _sent, metrics = run_sync(check, workers)
        assert metrics["pipeline/weights/checked_tensors"] == 0
        assert metrics.get("pipeline/weights/unchecked_tensors") == unchecked
    output = capsys.readouterr().out
    assert output.count("weights unchecked after a sync") == 1
    assert reason in output
