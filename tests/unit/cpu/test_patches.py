"""Every monkey-patch is still needed and still fits: these tests fail when upstream changes what is patched."""

import inspect

import pytest

from verl_pipeline.cpu import patches


def test_verl_still_names_the_cpu_twice():
    from verl.utils import distributed

    original = inspect.unwrap(distributed.initialize_global_process_group_ray)
    assert list(inspect.signature(original).parameters) == ["timeout_second", "backend"]
    assert 'backend or f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in inspect.getsource(original)


def test_the_patched_process_group_is_gloo_alone():
    class Module:
        @staticmethod
        def initialize_global_process_group_ray(timeout_second=None, backend=None):
            return backend

    patches.patch_process_group_backend(Module)
    assert Module.initialize_global_process_group_ray() == "cpu:gloo"
    assert Module.initialize_global_process_group_ray(backend="cpu:mpi") == "cpu:mpi"


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


def test_vllm_keeps_linear_weights_after_the_patch(monkeypatch):
    pytest.importorskip("vllm")
    import torch
    from vllm.model_executor.layers import utils

    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", utils.dispatch_cpu_unquantized_gemm)
    patches.keep_vllm_linear_weights()
    patches.keep_vllm_linear_weights()
    layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert layer.weight.shape == (64, 64)


def test_vllm_still_spins_for_a_second():
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    source = inspect.getsource(shm_broadcast)
    assert "busy_loop_s: float = 1,\n" in source
    assert source.count("SpinCondition(\n") == 2 and "busy_loop_s=" not in source


def test_vllm_sleeps_after_the_patch(monkeypatch):
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    import zmq

    monkeypatch.setattr(shm_broadcast.SpinCondition, "__init__", shm_broadcast.SpinCondition.__init__)
    patches.stop_vllm_busy_waiting()
    patches.stop_vllm_busy_waiting()
    with zmq.Context() as context:
        reader = shm_broadcast.SpinCondition(is_reader=True, context=context, notify_address="inproc://test")
        assert reader.busy_loop_s == patches.BUSY_LOOP_S
        for end in (reader.local_notify_socket, reader.read_cancel_socket, reader.write_cancel_socket):
            end.close(0)


def test_verl_still_pins_forward_only_models():
    from verl.workers.engine.fsdp import transformer_impl

    source = inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    assert "if self.engine_config.offload_policy or self.engine_config.forward_only:" in source
    assert "CPUOffloadPolicy(pin_memory=True)" in source
