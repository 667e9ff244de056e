"""The names of verl, TransferQueue and vLLM that we use, compared with what is installed.

``python -m verl_pipeline.verl_adapter.contract`` prints the differences; ``--update`` writes the
installed signatures and fingerprints into ``contract.toml``, after somebody has read what changed.

``contract.toml`` lists each name as ``module:qualified.name`` with

* ``signature``: parameters with their defaults. Annotations do not count: they break no caller.
* ``body`` (optional): a fingerprint of the source, where we rely on what a function does and not
  only on how it is called. Comments and docstrings do not count.
* ``relies_on`` (optional): what of it we rely on; shown when it changes.
* ``cpu_only`` (optional): used on CPUs only.

``module:Class.self.attribute`` is an attribute that a method of the class assigns;
``config:a.b.c`` is a key of verl's configuration with its default.

Invariant: a difference names the name. Nothing is patched, installed or written without --update.
"""

import ast
import functools
import hashlib
import importlib
import inspect
import io
import json
import sys
import textwrap
import tokenize
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run
from verl_pipeline.verl_adapter.cpu.vllm_distribution import install_finder

CONTRACT = Path(__file__).with_name("contract.toml")
_TOML = tomllib.loads(CONTRACT.read_text())
# Versions of verl that our whole test suite has passed with.
CONTRACT_VERSIONS: list[str] = _TOML["tested_versions"]["verl"]
_WITH_DOCSTRING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class ContractName:
    """One entry of ``contract.toml``; see the module."""

    name: str
    signature: str = ""
    body: str = ""
    relies_on: str = ""
    cpu_only: bool = False


@dataclass(frozen=True)
class ContractDifference:
    """One name that is not what the contract says."""

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class MissingName(Exception):
    """A name does not exist; the message says which part of it."""


def read_contract() -> list[ContractName]:
    """The names of ``contract.toml``, in its order."""
    return [ContractName(**entry) for entry in _TOML["names"]]


def find_differences() -> list[ContractDifference]:
    """Compare every name with what is installed; imports verl's trainers, which takes seconds."""
    differences = []
    for entry in read_contract():
        if entry.cpu_only and not is_cpu_run():
            continue
        try:
            installed = describe_installed(entry)
        except MissingName as error:
            differences.append(ContractDifference(entry.name, str(error)))
            continue
        if installed.signature != entry.signature:
            problem = f"now {installed.signature}, in the contract {entry.signature}"
            differences.append(ContractDifference(entry.name, problem))
        elif installed.body != entry.body:
            problem = f"its source changed; we rely on: {entry.relies_on}"
            differences.append(ContractDifference(entry.name, problem))
    return differences


def describe_installed(entry: ContractName) -> ContractName:
    """``entry`` with the signature and the fingerprint of what is installed.

    Raises:
        MissingName: the name does not exist, or its module cannot be imported.
    """
    module_name, _, path = entry.name.partition(":")
    if module_name == "config":
        return replace(entry, signature=_describe_config_key(path))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises, it is not what we were tested with
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingName(f"{module_name} cannot be imported ({cause})") from error
    if not path:
        return entry
    if ".self." in path:
        class_path, _, attribute = path.partition(".self.")
        if attribute not in _list_assigned_attributes(_resolve_name(module, class_path)):
            raise MissingName(f"no method of {class_path} assigns self.{attribute}")
        return entry
    found = _resolve_name(module, path)
    body = fingerprint_source(found) if entry.body else ""
    return replace(entry, signature=describe_signature(found), body=body)


def describe_signature(found: Any) -> str:
    """Parameters with defaults of a callable, else the type and, if it is short, the value."""
    if isinstance(found, property):
        return "property"
    if not callable(found):
        value = repr(found) if isinstance(found, int | float | str | tuple) else ""
        return f"{type(found).__name__} {value}".strip()
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return "callable"
    return "(" + ", ".join(_describe_parameter(parameter) for parameter in parameters) + ")"


def _describe_parameter(parameter: inspect.Parameter) -> str:
    bare = parameter.replace(annotation=inspect.Parameter.empty)
    default = parameter.default
    if default is not inspect.Parameter.empty and " at 0x" in repr(default):
        return f"{bare.name}=..."
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return f"*{bare}"
    return str(bare)


def fingerprint_source(found: Any) -> str:
    """Twelve hexadecimal digits that do not depend on comments, docstrings and empty lines."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(found)))
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            for row in range(docstring.lineno, (docstring.end_lineno or 0) + 1):
                lines[row - 1] = ""
    code = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def _resolve_name(module: Any, path: str) -> Any:
    """The object at ``path`` in ``module``; Ray's actor classes are looked into."""
    found = module
    for part in path.split("."):
        found = getattr(getattr(found, "__ray_metadata__", None), "modified_class", found)
        # Without binding: a classmethod's signature would lose a parameter, a property its type.
        static = inspect.getattr_static(found, part, None)
        if isinstance(static, property):
            found = static
        elif hasattr(found, part):
            found = getattr(found, part)
        elif part in getattr(found, "__dataclass_fields__", {}):
            found = found.__dataclass_fields__[part].type
        else:
            raise MissingName(f"{getattr(found, '__name__', found)} has no {part}")
    return getattr(getattr(found, "__ray_metadata__", None), "modified_class", found)


def _list_assigned_attributes(cls: type) -> set[str]:
    """Names of ``self.<name>`` that methods of ``cls`` or its bases assign."""
    assigned = set()
    for base in cls.__mro__[:-1]:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    assigned.add(node.attr)
    return assigned


@functools.cache
def _compose_config() -> Any:
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


def _describe_config_key(key: str) -> str:
    """The default of a key of verl's configuration, as JSON; "{...}" for a section."""
    from omegaconf import OmegaConf

    missing = object()
    value = OmegaConf.select(_compose_config(), key, default=missing)
    if value is missing:
        raise MissingName("verl's configuration has no such key")
    return "{...}" if OmegaConf.is_config(value) else json.dumps(value)


def write_contract() -> None:
    """Write the installed signatures and fingerprints into ``contract.toml``.

    Raises:
        MissingName: a name does not exist; remove it from the contract, and its use, by hand.
    """
    lines = CONTRACT.read_text().split("[[names]]")[0].rstrip().splitlines()
    for entry in read_contract():
        installed = describe_installed(entry)
        lines += ["", "[[names]]", f"name = {json.dumps(installed.name)}"]
        for field in ("signature", "body", "relies_on"):
            if value := getattr(installed, field):
                lines.append(f"{field} = {json.dumps(value)}")
        if installed.cpu_only:
            lines.append("cpu_only = true")
    CONTRACT.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Print the differences, or write the contract; 1 if there are differences."""
    # verl asks for the version of vLLM; our plugin, which answers on CPUs, may be switched off.
    install_finder()
    if sys.argv[1:] == ["--update"]:
        write_contract()
        return 0
    differences = find_differences()
    for difference in differences:
        print(difference)
    print(f"{len(read_contract())} names, {len(differences)} differences", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
