"""Records time spans inside the processes of a run.

With ``VERL_USE_EXTERNAL_MODULES=benchmarks.spans``, every process that imports verl loads this
module. It times the functions below and appends each call to ``$VERL_PIPELINE_SPANS`` as one JSON
line: name, process id, start (seconds since the epoch), seconds, and ``stolen``: the processor
seconds that other tenants have taken from the machine so far (``/proc/stat``'s steal).

``$VERL_PIPELINE_POLL_S`` sets the poll interval of verl's replay buffer (shipped: 2 s).

Invariants:
* Timed functions behave as before, also when they raise.
* No timed function is called more than a few hundred times per weight sync.
"""

import asyncio
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from wrapt import register_post_import_hook

from verl_pipeline.verl_adapter.emulated.patches import set_poll_interval

SPANS_VARIABLE = "VERL_PIPELINE_SPANS"
POLL_VARIABLE = "VERL_PIPELINE_POLL_S"

# Name -> (module, attribute): the items of a weight sync that overlap or end late, and the end of a
# step.
FUNCTIONS = {
    "network": ("verl_pipeline.weight_sync.gloo_broadcast", "GlooBroadcast._receive_bucket"),
    "load": (
        "verl.workers.rollout.vllm_rollout.utils",
        "vLLMColocateWorkerExtension._update_weights",
    ),
    "vLLM": (
        "verl.workers.rollout.vllm_rollout.utils",
        "vLLMColocateWorkerExtension.update_weights_from_ipc",
    ),
    "repack": ("vllm._custom_ops", "create_onednn_mm"),
    # Every trainer logs once per step, as its last action.
    "step ends": ("verl.utils.tracking", "Tracking.log"),
}
# Functions whose first result is an iterator; its span covers the time inside the iterator.
ITERATORS = {
    "gather": ("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine.get_per_tensor_param")
}


def write_span(name: str, start: float, seconds: float, **details: Any) -> None:
    """Append one span if the run records spans; ``details`` are further fields of its line."""
    if SPANS_VARIABLE not in os.environ:
        return
    common = {"name": name, "pid": os.getpid(), "start": start, "seconds": seconds}
    line = json.dumps({**common, "stolen": psutil.cpu_times().steal, **details})
    with open(os.environ[SPANS_VARIABLE], "a") as file:
        file.write(line + "\n")


@contextmanager
def record_span(name: str) -> Iterator[None]:
    """Record the duration of a block."""
    start, begin = time.time(), time.perf_counter()
    try:
        yield
    finally:
        write_span(name, start, time.perf_counter() - begin)


def read_spans(path: Path) -> list[dict]:
    """Return all spans recorded so far."""
    lines = path.read_text().split("\n") if path.exists() else []
    return [json.loads(line) for line in lines if line]


def _time_function(name: str, function: Callable) -> Callable:
    if asyncio.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed_coroutine(*args: Any, **kwargs: Any) -> Any:
            with record_span(name):
                return await function(*args, **kwargs)

        return timed_coroutine

    @functools.wraps(function)
    def timed_function(*args: Any, **kwargs: Any) -> Any:
        with record_span(name):
            return function(*args, **kwargs)

    return timed_function


def _time_iterator(name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def timed_call(*args: Any, **kwargs: Any) -> Any:
        start, begin = time.time(), time.perf_counter()
        items, *rest = function(*args, **kwargs)
        spent = time.perf_counter() - begin

        def timed_items() -> Iterator:
            nonlocal spent
            iterator = iter(items)
            while True:
                begin = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    write_span(name, start, spent + time.perf_counter() - begin)
                    return
                spent += time.perf_counter() - begin
                yield item

        return timed_items(), *rest

    return timed_call


def make_hook(
    name: str, attribute: str, wrap: Callable[[str, Callable], Callable]
) -> Callable[[Any], None]:
    """What replaces ``attribute`` of a module by ``wrap`` of its name and itself."""

    def install_hook(module: Any) -> None:
        owner = module
        *path, last = attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, wrap(name, owner.__dict__[last]))

    return install_hook


def _set_poll_interval(module: Any) -> None:
    set_poll_interval(module, float(os.environ[POLL_VARIABLE]))


if POLL_VARIABLE in os.environ:
    register_post_import_hook(_set_poll_interval, "verl.trainer.ppo.v1.replay_buffer")
if SPANS_VARIABLE in os.environ:
    for _name, (_module, _attribute) in FUNCTIONS.items():
        register_post_import_hook(make_hook(_name, _attribute, _time_function), _module)
    for _name, (_module, _attribute) in ITERATORS.items():
        register_post_import_hook(make_hook(_name, _attribute, _time_iterator), _module)
