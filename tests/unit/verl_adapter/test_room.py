"""verl, TransferQueue and vLLM stay behind one door, and the contract lists what is used."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from verl_pipeline.verl_adapter.contract import read_contract

ROOT = Path(__file__).parents[3]
DOOR = ROOT / "verl_pipeline" / "verl_adapter"
UPSTREAM = ("verl", "transfer_queue", "vllm")
# vLLM's documented interface for offline inference, and verl's for tools of one's own.
PUBLIC = {
    "vllm:LLM",
    "vllm:SamplingParams",
    "vllm.sampling_params:RequestOutputKind",
    "verl.tools.function_tool:function_tool",
}


def list_sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def find_used_names(tree: ast.AST) -> set[str]:
    """``module:name`` of all that a module imports from upstream, and of what it takes from those.

    ``import verl.a`` gives ``verl.a:``; with ``from verl import b``, ``b.c`` gives ``verl:b.c``.
    """
    used: set[str] = set()
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_upstream(node.module):
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}:{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if is_upstream(alias.name):
                    imported[alias.asname or alias.name] = f"{alias.name}:"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if name := imported.get(node.value.id):
                used.add(f"{name}{node.attr}" if name.endswith(":") else f"{name}.{node.attr}")
    return used | set(imported.values())


def is_upstream(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in UPSTREAM


def is_public(name: str) -> bool:
    """Of vLLM's public interface, members of its public classes included."""
    return any(name == public or name.startswith(f"{public}.") for public in PUBLIC)


def is_in_contract(name: str, contract: set[str]) -> bool:
    """A listed name or a member of one; or, through its alias, a listed module or its name."""
    module, _, path = name.partition(":")
    head, _, tail = path.partition(".")
    listed = f"{module}:{head}"
    in_module = f"{module}.{head}:{tail}" if head else f"{module}:"
    return any(entry == listed or entry.startswith((f"{listed}.", in_module)) for entry in contract)


@pytest.mark.parametrize(
    "path",
    [path for path in list_sources("verl_pipeline", "examples") if DOOR not in path.parents],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_other_rooms_import_nothing_of_upstream_but_its_public_names(path):
    used = find_used_names(ast.parse(path.read_text()))
    assert [name for name in sorted(used) if not is_public(name)] == []


def test_every_name_that_is_imported_is_in_the_contract():
    contract = {entry.name for entry in read_contract()}
    used = {
        (name, path.name)
        for path in list_sources("verl_pipeline/verl_adapter", "benchmarks")
        for name in find_used_names(ast.parse(path.read_text()))
    }
    missing = [
        f"{file}: {name}"
        for name, file in sorted(used)
        if not (is_in_contract(name, contract) or is_public(name))
    ]
    assert missing == []


def test_one_folder_calls_transfer_queue():
    """The others know no more of it than the type of a batch."""
    callers = {
        path.relative_to(DOOR).parts[0]
        for path in DOOR.rglob("*.py")
        for name in find_used_names(ast.parse(path.read_text()))
        if name.startswith("transfer_queue") and name != "transfer_queue:KVBatchMeta"
    }
    assert callers == {"trajectories"}


def test_every_method_of_upstream_that_is_overridden_is_in_the_contract():
    """A method that verl's class has too is a hook; if verl renames it, ours would never run."""
    modules = [
        importlib.import_module(f"verl_pipeline.verl_adapter.{name}")
        for name in (
            "entry.run_entry",
            "rewards.reward_check",
            "rollout.agent_loop",
            "rollout.rollout_pool",
            "trainers.filtering_replay_buffer",
            "trainers.filtering_trainer",
            "trainers.jagged_trainer",
            "trainers.pipelined_trainer",
            "trainers.rank_worker",
            "trajectories.prompt_stream",
            "weights.checkpoint_engine",
            "weights.narrowing_checkpoint_engines",
        )
    ]
    contract = {entry.name.rpartition(":")[2] for entry in read_contract()}
    missing = []
    for module in modules:
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != module.__name__:
                continue
            bases = [base for base in cls.__mro__[1:] if is_upstream(base.__module__)]
            for name, member in vars(cls).items():
                owners = [base.__name__ for base in bases if name in vars(base)]
                if owners and inspect.isroutine(member):
                    if not any(f"{owner}.{name}" in contract for owner in owners):
                        missing.append(f"{cls.__name__}.{name} overrides {owners[0]}.{name}")
    assert missing == []
