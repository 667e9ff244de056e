"""Who spends how long on what, inside a run's processes:
``VERL_USE_EXTERNAL_MODULES=benchmarks.spans``.

Every process that imports verl loads this module. It times the functions below, wherever they are
imported, and appends each call to ``$VERL_PIPELINE_SPANS`` as one JSON line: name, process, start
(seconds since the epoch), seconds, and the processor seconds that other tenants of the machine have
taken from it until then (``/proc/stat``'s steal).

With ``$VERL_PIPELINE_POLL_S`` it also changes how often verl's own replay buffer looks (2 s as
shipped).

Invariants:
* Timed functions behave as before, also when they raise.
* Nothing is timed that is called more than a few hundred times a weight sync.
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

PATH = "VERL_PIPELINE_SPANS"
POLL_S = "VERL_PIPELINE_POLL_S"

# name -> (module, attribute): the stages of a weight sync that overlap or end late, and the end of
# a step.
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
    # Every trainer logs once a step, as its last act.
    "step ends": ("verl.utils.tracking", "Tracking.log"),
}
# Functions whose first result is an iterator: the time inside it is recorded once it ends.
ITERATORS = {
    "gather": ("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine.get_per_tensor_param")
}


def write(name: str, start: float, seconds: float, **details: Any) -> None:
    """Append one span, if this run asks for spans; ``details`` are further fields of its line."""
    if PATH not in os.environ:
        return
    common = {"name": name, "pid": os.getpid(), "start": start, "seconds": seconds}
    line = json.dumps({**common, "stolen": psutil.cpu_times().steal, **details})
    with open(os.environ[PATH], "a") as file:
        file.write(line + "\n")


@contextmanager
def span(name: str) -> Iterator[None]:
    """Record the time of a block."""
    start, begin = time.time(), time.perf_counter()
    try:
        yield
    finally:
        write(name, start, time.perf_counter() - begin)


def read(path: Path) -> list[dict]:
    """All spans so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _timed(name: str, function: Callable) -> Callable:
    if asyncio.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed_coroutine(*args: Any, **kwargs: Any) -> Any:
            with span(name):
                return await function(*args, **kwargs)

        return timed_coroutine

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with span(name):
            return function(*args, **kwargs)

    return timed


def _timed_iterator(name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
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
                    write(name, start, spent + time.perf_counter() - begin)
                    return
                spent += time.perf_counter() - begin
                yield item

        return timed_items(), *rest

    return timed


def _hook(
    name: str, attribute: str, wrap: Callable[[str, Callable], Callable]
) -> Callable[[Any], None]:
    def install(module: Any) -> None:
        owner = module
        *path, last = attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, wrap(name, owner.__dict__[last]))

    return install


def _poll_faster(module: Any) -> None:
    seconds = float(os.environ[POLL_S])
    module.ReplayBuffer.__init__ = functools.partialmethod(
        module.ReplayBuffer.__init__, poll_interval=seconds
    )


if POLL_S in os.environ:
    register_post_import_hook(_poll_faster, "verl.trainer.ppo.v1.replay_buffer")
if PATH in os.environ:
    for _name, (_module, _attribute) in FUNCTIONS.items():
        register_post_import_hook(_hook(_name, _attribute, _timed), _module)
    for _name, (_module, _attribute) in ITERATORS.items():
        register_post_import_hook(_hook(_name, _attribute, _timed_iterator), _module)
