"""The metadata in pyproject.toml and the wheel agree with each other and with what is promised."""

import ast
import configparser
import fnmatch
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.helpers.repository import list_repository_files

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

ENTRY_POINTS = {
    "console_scripts": {"verl-pipeline": "verl_pipeline.cli:main"},
    "verl.plugins": {"verl_pipeline": "verl_pipeline.plugin"},
    "vllm.general_plugins": {
        "verl_pipeline_cpu": "verl_pipeline.verl_adapter.cpu.vllm_plugin:register"
    },
}

# In two halves, so that this file does not contain what it looks for.
REGISTRY_HOSTS = [
    head + tail
    for head, tail in [
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("download.py", "torch.org"),
        ("wheels.vl", "lm.ai"),
        ("pypi.nv", "idia.com"),
        ("registry.np", "mjs.org"),
        ("registry.yarn", "pkg.com"),
        ("deb.de", "bian.org"),
        ("conda.ana", "conda.org"),
        ("crates", ".io"),
    ]
]


def test_the_checks_are_made_for_the_oldest_python_that_is_promised():
    oldest = PYPROJECT["tool"]["mypy"]["python_version"]
    assert f">={oldest}," in PYPROJECT["project"]["requires-python"]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def test_git_ignores_no_source_file():
    """A folder with the name of something that runs write would be missing in every clone."""
    sources = {
        path
        for folder in ("verl_pipeline", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sources - set(list_repository_files()) == set()


def test_verl_takes_every_python_that_is_promised():
    verl = SpecifierSet(importlib.metadata.metadata("verl")["Requires-Python"])
    ours = SpecifierSet(PYPROJECT["project"]["requires-python"])
    promised = [minor for minor in range(8, 20) if ours.contains(f"3.{minor}")]
    assert promised and all(verl.contains(f"3.{minor}") for minor in promised)


def test_every_entry_point_loads():
    code = (
        "import sys; from importlib.metadata import EntryPoint; [EntryPoint('', v, '').load() for v"
        " in sys.argv[1:]]"
    )
    targets = [target for group in ENTRY_POINTS.values() for target in group.values()]
    run = subprocess.run(
        [sys.executable, "-c", code, *targets], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_setup_py_declares_nothing_but_the_description():
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]
    declared = {keyword.arg for keyword in call.keywords}
    assert declared == {"long_description", "long_description_content_type"}


def test_hydra_plugins_stays_a_namespace_package():
    assert [path.name for path in (ROOT / "hydra_plugins").glob("*.py")] == [
        "verl_pipeline_search_path.py"
    ]


def test_every_data_file_of_the_package_gets_into_the_wheel():
    globs = PYPROJECT["tool"]["setuptools"]["package-data"]["verl_pipeline"]
    package = ROOT / "verl_pipeline"
    files = [
        path.relative_to(package).as_posix()
        for path in list_repository_files()
        if path.is_relative_to(package)
    ]
    patterns = [pattern.replace("**/", "*") for pattern in globs]
    left_out = [
        name
        for name in files
        if not name.endswith(".py")
        and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    assert left_out == [], "add them to [tool.setuptools.package-data] in pyproject.toml"


def test_no_file_names_the_host_of_a_package_registry():
    found = []
    for path in list_repository_files():
        text = path.read_bytes().decode("utf-8", errors="replace").lower()
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRY_HOSTS if host in text]
    assert found == []


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert script.read_text().rstrip().endswith("exec make test")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Path of the wheel, built from a copy of what it is built from."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("verl_pipeline", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--wheel", "--no-isolation", "--outdir", str(folder), str(checkout))
    build = subprocess.run(
        [sys.executable, "-m", "build", *options], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_code_data_hydra_plugin_and_entry_points(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = configparser.ConfigParser(delimiters=("=",))
        entry_points.optionxform = str
        entry_points.read_string(
            archive.read(next(n for n in names if n.endswith("/entry_points.txt"))).decode()
        )
        description = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert {group: dict(entry_points[group]) for group in entry_points.sections()} == ENTRY_POINTS

    kinds = (
        "config/**/*.yaml",
        "planner/profiles/*.yaml",
        "quickstart/*.jsonl",
        "recipes/deepcoder/*.jinja",
        "recipes/**/*.md",
        "recipes/**/*.yaml",
        "report/assets/*",
        "verl_adapter/*.toml",
    )
    data = [path for kind in kinds for path in (ROOT / "verl_pipeline").glob(kind)]
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in [*(ROOT / "verl_pipeline").rglob("*.py"), *data]
    }
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == expected | {"hydra_plugins/verl_pipeline_search_path.py"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # No registry has the repository's files.
    assert find_relative_links(description) == []
    assert "First commands" in description and "docs/installation.md" in description


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["verl_pipeline.cli", "demo", "--output", "demo.html"], "in_flight"),
        (["verl_pipeline.cli", "plan", "--profile", "deepcoder_code_8xa100"], "staleness"),
        (["verl_pipeline.cli", "doctor", "--cpu"], "contract with verl"),
        (["verl_pipeline.quickstart", "--help"], "--output"),
        (["verl_pipeline.recipes.deepcoder.prepare", "--help"], "--config"),
        (
            ["verl_pipeline.recipes.deepcoder.train", "--hardware", "cpu", "--dry-run"],
            "stage short",
        ),
        (["verl_pipeline.main", "--cfg", "job", "--resolve"], "one_off_pipeline"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_wheel_works_where_no_checkout_is(wheel, tmp_path, command, expected):
    """Installed beside verl, used from an empty folder."""
    site, folder = tmp_path / "site", tmp_path / "folder"
    folder.mkdir()
    install = ("-m", "pip", "install", "--no-deps", "--no-index", f"--target={site}", str(wheel))
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
    origin = "import verl_pipeline as package; print(package.__file__)"
    ran = [
        subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        for arguments in (("-c", origin), ("-m", *command))
    ]
    assert ran[0].stdout.startswith(str(site))
    assert ran[1].returncode == 0 and expected in ran[1].stdout, ran[1].stdout + ran[1].stderr


def find_relative_links(text):
    return re.findall(r"\]\((?!https?:|#)[^)]*\)", text)


def test_links_of_the_description_lead_to_the_repository_if_one_is_known():
    loader = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    script = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(script)
    text = "![a picture](docs/a.svg) [b](docs/b.md#c) [site](https://x.org/) [here](#here)"
    assert script.rewrite_links(text, "https://git.org/us/it/") == (
        "![a picture](https://git.org/us/it/raw/main/docs/a.svg) "
        "[b](https://git.org/us/it/blob/main/docs/b.md#c) [site](https://x.org/) [here](#here)"
    )
    assert script.rewrite_links(text, None) == " b [site](https://x.org/) [here](#here)"
