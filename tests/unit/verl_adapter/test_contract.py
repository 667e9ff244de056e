"""The contract with verl: what counts as a difference, and that one is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline
from verl_pipeline.verl_adapter import contract
from verl_pipeline.verl_adapter.contract import (
    ContractDifference,
    ContractName,
    MissingName,
    describe_installed,
    describe_signature,
    find_differences,
    fingerprint_source,
    read_contract,
)


def test_names_are_listed_once_and_a_fingerprint_says_what_we_rely_on():
    entries = read_contract()
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    assert [entry.name for entry in entries if entry.body and not entry.relies_on] == []


def test_a_signature_is_names_kinds_and_defaults():
    def call(first: int, *rest: str, key: str = "x", **options: object) -> None: ...

    assert describe_signature(call) == "(first, *rest, *key='x', **options)"
    assert describe_signature(property(call)) == "property"
    assert describe_signature(5000) == "int 5000"
    default = object()
    assert describe_signature(lambda handler=default: handler) == "(handler=...)"


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ('def call(a):\n    """Other words."""\n    return [a]\n', True),
        ("def call(a):\n\n    return [a]  # why\n", True),
        ("def call(a):\n    return (a,)\n", False),
        ('def call(a):\n    "#"\n    return ["#", a]\n', False),
    ],
)
def test_a_fingerprint_ignores_docstrings_and_comments_only(tmp_path, changed, is_same):
    functions = []
    for name, source in (
        ("one", 'def call(a):\n    """Words."""\n    return [a]\n'),
        ("two", changed),
    ):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        namespace: dict = {}
        exec(compile(source, str(path), "exec"), namespace)
        functions.append(namespace["call"])
    assert (fingerprint_source(functions[0]) == fingerprint_source(functions[1])) == is_same


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("json:lodas", "json has no lodas"),
        ("json.decoder:JSONDecoder.decod", "JSONDecoder has no decod"),
        ("json.decoder:JSONDecoder.self.stric", "no method of JSONDecoder assigns self.stric"),
        ("jsno:loads", "jsno cannot be imported (ModuleNotFoundError: No module named 'jsno')"),
        ("config:trainer.v1.trainer_mod", "verl's configuration has no such key"),
    ],
)
def test_a_name_that_is_gone_is_named(name, problem):
    with pytest.raises(MissingName) as caught:
        describe_installed(ContractName(name))
    assert problem in str(caught.value)


def test_a_changed_signature_body_or_default_is_a_difference(monkeypatch):
    entries = [
        ContractName("json:loads", signature="(s)"),
        ContractName("textwrap:dedent", "(text)", body="000000000000", relies_on="it dedents"),
        ContractName("config:trainer.v1.trainer_mode", signature='"async"'),
        ContractName("json.decoder:JSONDecoder.self.strict"),
    ]
    monkeypatch.setattr(contract, "read_contract", lambda: entries)
    loads, dedent, mode = find_differences()
    assert loads.name == "json:loads" and "in the contract (s)" in loads.problem
    assert dedent == ContractDifference(
        "textwrap:dedent", "its source changed; we rely on: it dedents"
    )
    assert mode.problem == 'now "sync", in the contract "async"'


@pytest.mark.medium
@pytest.mark.timeout(400)
@pytest.mark.slow
def test_only_the_planted_change_in_a_copy_of_verl_is_a_difference(tmp_path):
    """The whole contract holds for what is installed, but for one signature changed on purpose."""
    import verl

    copy = shutil.copytree(Path(verl.__file__).parent, tmp_path / "verl")
    trainer = copy / "trainer" / "ppo" / "v1" / "trainer_base.py"
    planted = trainer.read_text().replace(
        "def _compute_advantage(self, batch: KVBatchMeta, metrics: dict)",
        "def _compute_advantage(self, batch: KVBatchMeta, metrics: dict, planted=None)",
    )
    trainer.write_text(planted)
    run = subprocess.run(
        [sys.executable, "-m", "verl_pipeline.verl_adapter.contract"],
        env={**os.environ, "VERL_PLATFORM": "cpu", "PYTHONPATH": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=scale_deadline(360),
    )
    found = [
        line for line in run.stdout.splitlines() if line.startswith(("verl", "vllm", "transf"))
    ]
    assert found == [
        "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage: "
        "now (self, batch, metrics, planted=None), in the contract (self, batch, metrics)"
    ], run.stderr[-2000:]
    assert run.returncode == 1
