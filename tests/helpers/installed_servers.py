"""Rollout servers and replicas of each engine, made of the installed source of verl.

Neither SGLang nor TensorRT-LLM is installed, so the modules of their servers cannot be imported.

Invariants:
* A stand-in for a server has exactly the methods and parameters of the installed class; the test's
  own class answers all calls.
* A replica runs the installed code of its class.
"""

import __future__

import ast
import asyncio
import importlib.util
import logging
from pathlib import Path
from typing import Any

import ray
from verl.workers.rollout.replica import RolloutReplica

_FOLDER = Path(importlib.util.find_spec("verl").submodule_search_locations[0]) / "workers/rollout"
SERVERS = {
    "vllm": ("vllm_rollout/vllm_async_server.py", "vLLMHttpServer"),
    "sglang": ("sglang_rollout/async_sglang_server.py", "SGLangHttpServer"),
    "trtllm": ("trtllm_rollout/trtllm_async_server.py", "TRTLLMHttpServer"),
}
# Modules and names of the classes below RolloutReplica, the last one the replica's, and its engine.
REPLICAS = {
    "vllm": ("vllm", [("vllm_rollout/vllm_async_server.py", "vLLMReplica")]),
    "vllm, disaggregated": (
        "vllm",
        [
            ("vllm_rollout/vllm_async_server.py", "vLLMReplica"),
            ("vllm_rollout/vllm_pd_replica.py", "vLLMPDReplica"),
        ],
    ),
    "sglang": ("sglang", [("sglang_rollout/async_sglang_server.py", "SGLangReplica")]),
    "sglang, disaggregated": (
        "sglang",
        [
            ("sglang_rollout/async_sglang_server.py", "SGLangReplica"),
            ("sglang_rollout/sglang_pd_replica.py", "SGLangPDReplica"),
        ],
    ),
    "trtllm": ("trtllm", [("trtllm_rollout/trtllm_async_server.py", "TRTLLMReplica")]),
}


def make_replica(kind: str, servers: list) -> RolloutReplica:
    """A replica of the installed class whose servers are ``servers``."""
    _engine, classes = REPLICAS[kind]
    names: dict[str, Any] = {
        "RolloutReplica": RolloutReplica,
        "asyncio": asyncio,
        "logger": logging.getLogger(__name__),
    }
    for file, name in classes:
        replica_class = _execute(_read_class(file, name), names)
    replica = object.__new__(replica_class)
    replica.servers, replica.workers, replica.replica_rank = servers, [], 0
    return replica


def make_server_class(engine: str, base: type):
    """A Ray actor class with the methods of the installed server.

    Args:
        base: its coroutine ``answer(method, arguments)`` answers each call.
    """
    definition = _read_class(*SERVERS[engine])
    methods = [
        node
        for node in definition.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__"
    ]
    definition.bases = [ast.Name("Base", ast.Load())]
    definition.body = [_answer_with_base(method) for method in methods]
    # No module holds it: its definition goes to the process, and not this module's imports.
    server_class = _execute(definition, {"Base": base, "__name__": "installed_source"})
    return ray.remote(num_cpus=0, max_concurrency=64)(server_class)


def find_returned_texts(engine: str, method: str) -> set[str]:
    """Texts, such as keys, in what a method of the installed server returns."""
    definition = _read_class(*SERVERS[engine])
    (found,) = [node for node in definition.body if getattr(node, "name", None) == method]
    returned = [node.value for node in ast.walk(found) if isinstance(node, ast.Return)]
    constants = [part for value in returned if value for part in ast.walk(value)]
    return {part.value for part in constants if isinstance(part, ast.Constant)}


def _answer_with_base(method) -> ast.AsyncFunctionDef:
    arguments = method.args
    names = [argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]][1:]
    given = ", ".join(f"{name!r}: {name}" for name in names)
    body = ast.parse(f"async def _(): return await self.answer({method.name!r}, {{{given}}})").body
    return ast.AsyncFunctionDef(method.name, arguments, body[0].body, [], None)


def _read_class(file: str, name: str) -> ast.ClassDef:
    tree = ast.parse((_FOLDER / file).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return found


def _execute(definition: ast.ClassDef, names: dict[str, Any]) -> type:
    definition.decorator_list = []
    module = ast.fix_missing_locations(ast.Module([definition], type_ignores=[]))
    # Annotations name types of modules that are not there.
    code = compile(module, "<installed source>", "exec", __future__.annotations.compiler_flag)
    exec(code, names)
    return names[definition.name]
