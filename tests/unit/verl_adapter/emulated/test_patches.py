"""Each patch of emulated runs: that verl is still as it says, and that it helps."""

import asyncio
import inspect
from types import SimpleNamespace

from verl.trainer.ppo.v1 import replay_buffer, trainer_base
from verl.workers.rollout import base, llm_server

from verl_pipeline.verl_adapter.emulated import patches
from verl_pipeline.verl_adapter.emulated.plugin import ADAPTER
from verl_pipeline.verl_adapter.emulated.weight_receiver import EmulatedWeightReceiver


def make_buffer_module():
    class ReplayBuffer:
        __init__ = replay_buffer.ReplayBuffer.__init__

    return SimpleNamespace(ReplayBuffer=ReplayBuffer)


def test_verl_still_polls_every_two_seconds_and_gives_no_other_interval():
    parameter = inspect.signature(replay_buffer.ReplayBuffer.__init__).parameters["poll_interval"]
    assert parameter.default == patches.POLL_S
    assert "self.poll_interval" in inspect.getsource(replay_buffer)
    assert "poll_interval" not in inspect.getsource(trainer_base)


def test_a_patched_buffer_has_the_interval():
    module = make_buffer_module()
    patches.set_poll_interval(module, 0.25)
    given = inspect.signature(module.ReplayBuffer.__init__).parameters["poll_interval"]
    assert given.default == 0.25


def test_verls_client_still_pauses_a_second_by_asyncio():
    assert llm_server.asyncio is asyncio
    source = inspect.getsource(llm_server)
    assert source.count("await asyncio.sleep(1)") == source.count("asyncio.sleep(") == 2


def test_patched_pauses_are_shorter_and_nobody_elses_are(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    module = SimpleNamespace(asyncio=asyncio)
    patches.scale_pauses(module, 100.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(module.asyncio.sleep(1))
    asyncio.run(asyncio.sleep(1))
    assert slept == [0.01, 1]
    assert module.asyncio.gather is asyncio.gather


def test_verl_finds_the_receiver_that_was_added(monkeypatch):
    monkeypatch.setattr(base, "_ROLLOUT_REGISTRY", dict(base._ROLLOUT_REGISTRY))
    patches.add_receiver(base, "emulated", ADAPTER)
    assert base.get_rollout_class("emulated", "async") is EmulatedWeightReceiver
    assert not any("register" in name for name, _ in inspect.getmembers(base, inspect.isfunction))
