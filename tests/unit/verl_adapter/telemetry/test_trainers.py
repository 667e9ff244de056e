"""Verl finds a recorded trainer under its mode's name, and its own classes stay as they are."""

import inspect
import json

import pytest
import ray
from omegaconf import OmegaConf
from verl.single_controller.base.decorator import MAGIC_ATTR
from verl.single_controller.ray.base import _unwrap_ray_remote
from verl.trainer.ppo.v1 import PPOTrainer, PPOTrainerSync, get_trainer_cls
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from verl_pipeline.telemetry import recorder as recorder_module
from verl_pipeline.telemetry.recorder import RunTarget, find_recorder
from verl_pipeline.telemetry.records import Moment
from verl_pipeline.verl_adapter.contract import read_contract
from verl_pipeline.verl_adapter.telemetry import driver_spans, trainers
from verl_pipeline.verl_adapter.telemetry.agent_loops import _RecordingLoops
from verl_pipeline.verl_adapter.telemetry.run_target import VERL_MODES
from verl_pipeline.verl_adapter.telemetry.trainer_ranks import RECORDED, record_ranks
from verl_pipeline.verl_adapter.telemetry.trainers import add_moments, record_trainer
from verl_pipeline.verl_adapter.telemetry.verl_modes import record_verl_trainer

# Of our trainers only.
OURS = {"drain_rollout", "load_first_weights", "send_weights", "_validate_beside"}


class OtherWorker:
    """None that is recorded."""


def make_config(mode, **telemetry):
    settings = {"trainer_mode": mode, "one_off_pipeline": {"telemetry": telemetry}}
    return OmegaConf.create({"trainer": {"v1": settings}})


@pytest.fixture
def registry(monkeypatch):
    """verl's registry, as it was after the test."""
    kept = dict(TRAINER_REGISTRY)
    yield TRAINER_REGISTRY
    TRAINER_REGISTRY.clear()
    TRAINER_REGISTRY.update(kept)


@pytest.mark.parametrize("mode", VERL_MODES)
def test_verl_finds_a_subclass_under_the_modes_name(mode, registry):
    verls = get_trainer_cls(mode)
    before = dict(vars(verls))
    record_verl_trainer(make_config(mode, enabled=False))
    assert get_trainer_cls(mode) is verls
    record_verl_trainer(make_config(mode))
    recorded = get_trainer_cls(mode)
    assert recorded is not verls and issubclass(recorded, verls)
    assert recorded.__name__ == verls.__name__ and not inspect.isabstract(recorded)
    assert dict(vars(verls)) == before
    record_verl_trainer(make_config(mode))
    assert get_trainer_cls(mode) is recorded


@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync_filtered"])
def test_ours_are_recorded_whichever_entry_starts_them(mode):
    assert issubclass(get_trainer_cls(mode), trainers._RecordingTrainer)
    assert record_trainer(get_trainer_cls(mode)) is get_trainer_cls(mode)


@pytest.mark.parametrize("mode", ["sync", "sync_filtered"])
def test_a_run_is_called_by_the_mode_that_was_asked_for(mode, made_header, monkeypatch):
    """Ours has to call itself `sync` in verl's configuration."""
    monkeypatch.setattr(trainers, "make_target", lambda config: RunTarget(None, made_header))
    trainer = object.__new__(record_trainer(get_trainer_cls(mode)))
    trainer.config = None
    trainer._prepare_recording()
    assert made_header.mode == "sync" and trainer._run_target.header.mode == mode


def test_every_method_that_is_recorded_is_one_of_verls_and_in_the_contract():
    """If verl renames one, nothing would be recorded."""
    contract = {entry.name.rpartition(":")[2] for entry in read_contract()}
    workers = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    hooks = [
        (driver_spans.DriverSpans, PPOTrainer),
        (trainers._RecordingTrainer, PPOTrainer),
        (_RecordingLoops, workers),
    ]
    found = 0
    for mixin, upstream in hooks:
        for name, member in vars(mixin).items():
            if not inspect.isfunction(member) or name in OURS:
                continue
            owners = [base for base in upstream.__mro__ if name in vars(base)]
            if owners and owners[-1] is not object:
                found += 1
                listed = [f"{owner.__name__}.{name}" for owner in owners]
                assert any(entry in contract for entry in listed), listed
            elif name.startswith(("on_", "_compute", "_update", "_save", "_next", "_val")):
                pytest.fail(f"{upstream.__name__} has no {name}")
    assert found >= 20
    for worker, (_lane, methods) in RECORDED.items():
        for method in methods:
            assert f"{worker.__name__}.{method}" in contract


@pytest.mark.parametrize("worker", RECORDED)
def test_ranks_keep_how_verl_distributes_their_data(worker, made_header):
    roles = {"role": ray.remote(worker), "other": (other := ray.remote(OtherWorker))}
    record_ranks(roles, RunTarget(None, made_header))
    assert roles["other"] is other
    # As verl finds what a rank's process is to run.
    recorded = _unwrap_ray_remote(roles["role"])
    assert issubclass(recorded, worker)
    for method in RECORDED[worker][1]:
        theirs, ours = getattr(worker, method), getattr(recorded, method)
        assert theirs is not ours
        assert getattr(theirs, MAGIC_ATTR) is getattr(ours, MAGIC_ATTR)


@pytest.mark.parametrize("worker", RECORDED)
def test_what_a_rank_does_is_in_its_own_lane(worker, made_header, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "_recorders", {})
    lane, methods = RECORDED[worker]
    plain = type("Plain", (worker,), {name: lambda self, data: data for name in methods})
    roles = {"role": ray.remote(plain)}
    record_ranks(roles, RunTarget(str(tmp_path), made_header))
    rank = object.__new__(_unwrap_ray_remote(roles["role"]))
    monkeypatch.setattr(worker, "rank", 3, raising=False)
    for method in methods:
        assert getattr(rank, method)("batch") == "batch"
    find_recorder().close()
    (path,) = (tmp_path / "telemetry").glob("spans-*.jsonl")
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert [span["name"] for span in spans] == list(methods.values())
    assert {span["lane"] for span in spans} == {f"{lane} 3"}


def test_sessions_are_recorded_in_order_with_the_reason():
    class Recorder:
        records: list = []

        def now(self):
            return 5.0

        def add_many(self, kind, make_records):
            self.records += make_records()

    sessions = {("b2p1", 0), ("b1p0", 3)}
    reasons = {("b2p1", 0): "overlong"}
    add_moments(Recorder(), Moment.FILTERED, sessions, step=2, batch=None, reasons=reasons)
    told = [(one.prompt, one.session, one.step, one.reason) for one in Recorder.records]
    assert told == [("b1p0", 3, 2, None), ("b2p1", 0, 2, "overlong")]


def test_a_trainer_that_was_not_set_up_records_nothing():
    class Trainer(PPOTrainerSync):
        def _update_actor(self, batch, metrics):
            return batch

    trainer = object.__new__(record_trainer(Trainer))
    assert trainer._update_actor("batch", {}) == "batch"
