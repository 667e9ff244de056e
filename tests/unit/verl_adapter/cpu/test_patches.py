"""Every monkey-patch is still needed and still fits: these tests fail when upstream changes what is
patched.
"""

import inspect
import threading
import time
from pathlib import Path

import pytest

from verl_pipeline.verl_adapter.cpu import patches


def test_verl_still_names_the_cpu_twice():
    from verl.utils import distributed

    original = inspect.unwrap(distributed.initialize_global_process_group_ray)
    assert list(inspect.signature(original).parameters) == ["timeout_second", "backend"]
    assert 'backend or f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in inspect.getsource(
        original
    )
    # The SFT trainer's: its name, signature and what it returns.
    source = Path(inspect.getsourcefile(original)).read_text()
    assert "def initialize_global_process_group(timeout_second=36000):" in source
    assert 'backend = f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in source
    assert "return local_rank, rank, world_size" in source


def test_the_patched_process_group_is_gloo_alone(monkeypatch):
    class Module:
        @staticmethod
        def initialize_global_process_group_ray(timeout_second=None, backend=None):
            return backend

    patches.patch_process_group_backend(Module)
    assert Module.initialize_global_process_group_ray() == "cpu:gloo"
    assert Module.initialize_global_process_group_ray(backend="cpu:mpi") == "cpu:mpi"
    for name, value in {"LOCAL_RANK": "1", "RANK": "5", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert Module.initialize_global_process_group() == (1, 5, 8)


def test_verl_still_insists_on_flash_attention_for_critics():
    from verl.utils import model

    source = inspect.getsource(model)
    assert source.count('attn_implementation="flash_attention_2"') == 2
    parameters = ["local_path", "torch_dtype", "model_config", "trust_remote_code"]
    assert list(inspect.signature(model.load_valuehead_model).parameters) == parameters


def test_vllm_still_drops_linear_weights():
    pytest.importorskip("vllm")
    from vllm.model_executor.layers import linear, utils

    original = inspect.unwrap(utils.dispatch_cpu_unquantized_gemm)
    assert list(inspect.signature(original).parameters) == ["layer", "remove_weight"]
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in inspect.getsource(linear)


def test_vllm_packs_at_first_use_and_again_after_a_load(monkeypatch):
    pytest.importorskip("vllm")
    import torch
    from vllm.model_executor.layers import utils

    packed = []
    original = utils.dispatch_cpu_unquantized_gemm
    monkeypatch.setattr(
        utils,
        "dispatch_cpu_unquantized_gemm",
        lambda layer, remove_weight: (packed.append(1), original(layer, False)),
    )
    patches.pack_vllm_weights_at_first_use()
    patches.pack_vllm_weights_at_first_use()
    layer, x = torch.nn.Linear(64, 64, bias=False), torch.randn(3, 64)
    for load in range(2):
        layer.weight.data.copy_(torch.randn(64, 64))
        utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
        assert len(packed) == load and layer.weight.shape == (64, 64)
        for _ in range(2):
            torch.testing.assert_close(
                utils.cpu_unquantized_gemm(layer, x, layer.weight), x @ layer.weight.T
            )
        assert len(packed) == load + 1


def test_verls_receiver_still_takes_a_named_segment_and_offsets():
    """What InPlaceWeightSender speaks: the name and size, then buckets of offsets, each
    acknowledged.
    """
    import verl

    folder = (
        Path(verl.__file__).parent / "workers" / "rollout" / "vllm_rollout"
    )  # importing it needs a platform
    transfer = (folder / "bucketed_weight_transfer.py").read_text()
    assert (
        'shm_name = comm_metadata["name"]' in transfer
        and 'shm_size = comm_metadata["size"]' in transfer
    )
    assert "self.buffer[offset : offset + size].view(dtype=dtype).view(shape)" in transfer
    assert "buffer, shm = rebuild_shared_memory(shm_name, shm_size, dtype=torch.uint8)" in transfer
    assert all(
        name in transfer
        for name in ("def _init_socket(self)", "def _cleanup(self)", '"bucket_meta": bucket_')
    )
    assert "        sender = BucketedWeightSender(\n" in (folder / "vllm_rollout.py").read_text()


def test_vllm_still_spins_for_a_second():
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    source = inspect.getsource(shm_broadcast)
    assert "busy_loop_s: float = 1,\n" in source
    assert source.count("SpinCondition(\n") == 2 and "busy_loop_s=" not in source


def test_vllm_still_looks_again_after_five_seconds_only_when_a_notification_is_lost():
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    source = inspect.getsource(shm_broadcast)
    assert "SHM_READER_RECHECK_INTERVAL_MS = 5000" in source and "zmq.SNDHWM, 1)" in source
    assert "wait_ms = SHM_READER_RECHECK_INTERVAL_MS\n" in source


@pytest.fixture
def patched_queue(monkeypatch):
    """Writer and reader of one of vLLM's queues, its module patched twice, for one test."""
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    name = "SHM_READER_RECHECK_INTERVAL_MS"
    monkeypatch.setattr(shm_broadcast, name, getattr(shm_broadcast, name))
    monkeypatch.setattr(
        shm_broadcast.SpinCondition, "__init__", shm_broadcast.SpinCondition.__init__
    )
    patches.stop_vllm_busy_waiting()
    patches.stop_vllm_busy_waiting()
    writer = shm_broadcast.MessageQueue(1, 1, max_chunk_bytes=1024, max_chunks=2)
    reader = shm_broadcast.MessageQueue.create_from_handle(writer.export_handle(), 0)
    joining = threading.Thread(target=writer.wait_until_ready)
    joining.start()
    reader.wait_until_ready()
    joining.join(30)
    return writer, reader


def test_a_lost_notification_costs_milliseconds_after_the_patch(patched_queue, monkeypatch):
    """A message whose notification never comes: without the patch its reader sleeps for 5 s."""
    writer, reader = patched_queue
    monkeypatch.setattr(writer._spin_condition, "notify", lambda: None)
    received = []
    reading = threading.Thread(
        target=lambda: received.append(reader.dequeue(timeout=60)), daemon=True
    )
    reading.start()
    time.sleep(0.2)  # the reader is asleep
    writer.enqueue("message")
    reading.join(2.5)
    assert received == ["message"]


def test_vllm_sleeps_after_the_patch(patched_queue):
    _writer, reader = patched_queue
    assert reader._spin_condition.busy_loop_s == patches.BUSY_LOOP_S


def test_verl_still_pins_forward_only_models():
    from verl.workers.engine.fsdp import transformer_impl

    source = inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    assert "if self.engine_config.offload_policy or self.engine_config.forward_only:" in source
    assert "CPUOffloadPolicy(pin_memory=True)" in source
