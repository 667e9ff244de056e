"""Gives a command broken inputs and says what is wrong with its answers.

A test names a command once (:class:`FuzzedCommand`: module, arguments, files that work), and then
tries three kinds of input::

    @each_damage
    def test_damaged_file(damage):
        check_answer(GRADE, damage_file("problems.jsonl", damage))

    @efforts(quick=20, many=300)
    def test_broken_contents(effort):
        check_answers(GRADE, broken_contents(GRADE, "problems.jsonl"), effort)

    @efforts(quick=15, many=100)
    def test_broken_arguments(effort):
        check_answers(GRADE, broken_arguments(GRADE, ["--workers", "--tier"]), effort)

Invariants:
* Commands run as processes (forks of a warm one, :mod:`.command_server`), with a deadline.
* An answer is right if the exit code is documented, no file has changed, nothing internal shows,
  and a refusal is one line that names the file and, if one line of it is broken, line and field.
* With ``COMMAND_FUZZ_LOG=FILE``, attempts are appended to FILE as JSON lines and no test fails: so
  one counts what is tried and what it shows. ``COMMAND_FUZZ_ROOT=/other/checkout`` tries the
  commands of that checkout.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.helpers import command_server
from tests.helpers.broken_inputs import BrokenInput, write_contents
from tests.helpers.patience import scale_deadline

ROOT = Path(os.environ.get("COMMAND_FUZZ_ROOT") or Path(__file__).parents[2])
LOG = os.environ.get("COMMAND_FUZZ_LOG")
DEADLINE_S = 15.0
# What no user should read: a traceback, a name of an exception or type, a number of the system.
_INTERNAL = re.compile(
    r"Traceback \(most recent"
    r"|\b(?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b"
    r"|\bErrno\b|<class '|\bNoneType\b|has no attribute|not subscriptable|unhashable"
    r"|omegaconf\.|(?<!\w)full_key|object_type=|'(?:int|str|list|dict|float|bool)' object"
)
MAX_LINE_CHARACTERS = 2000


@dataclass(frozen=True)
class FuzzedCommand:
    """A command that works with the files given here.

    Attributes:
        name: for people.
        module: run as ``python -m module``.
        arguments: the folder with the files is the working directory.
        files: contents by name: bytes and text as they are, a list of objects as JSON lines (or,
            in ``.parquet``, as rows), an object as JSON (which is YAML too).
        exit_codes: the documented ones.
        preload: modules that the command imports late.
        environment: variables beside those of the tests.
        links: fields that rows have in common with others; if one is broken, those may be blamed.
        settings_file: the file of settings that arguments override: a refusal names the setting.
        allowed: pattern of what looks internal and is not (a class that a user names, say).
    """

    name: str
    module: str
    arguments: Sequence[str]
    files: Mapping[str, Any]
    exit_codes: frozenset[int]
    preload: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    links: frozenset[str] = frozenset()
    settings_file: str | None = None
    allowed: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a command did: exit code (None: killed at its deadline), output, files it changed."""

    exit_code: int | None
    output: str
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Effort:
    """How many inputs are drawn, and whether they are the same each time."""

    examples: int
    seeded: bool


def efforts(quick: int, many: int) -> pytest.MarkDecorator:
    """Give a test an ``effort``: ``quick`` (if any) in all runs, ``many`` in the slow ones."""
    slow = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize(
        "effort",
        [
            *([pytest.param(Effort(quick, True), id="quick")] if quick else []),
            pytest.param(Effort(many, False), id="many", marks=slow),
        ],
    )


def fuzz(effort: Effort) -> Callable[[Any], Any]:
    """Settings of hypothesis for tests that break inputs."""
    return settings(
        max_examples=effort.examples,
        derandomize=effort.seeded or bool(LOG),  # before and after are then tried with the same
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, *(() if LOG else (Phase.shrink,))),
        suppress_health_check=list(HealthCheck),
    )


def check_answers(
    command: FuzzedCommand, broken_inputs: SearchStrategy[BrokenInput], effort: Effort
) -> None:
    """Check the command's answers to inputs that are drawn."""

    @fuzz(effort)
    @given(broken=broken_inputs)
    def check(broken):
        check_answer(command, broken)

    check()


def check_answer(command: FuzzedCommand, broken: BrokenInput) -> Answer:
    """Run ``command`` with a broken input; fail if something is wrong with its answer."""
    answer = run_command(command, broken)
    faults = find_faults(command, broken, answer)
    if LOG:
        attempt = {
            "command": command.name,
            "input": f"{broken.slot}: {broken.label}",
            "exit_code": answer.exit_code,
            "faults": faults,
            "output": answer.output[-3000:],
        }
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps(attempt) + "\n")
    else:
        text = "\n".join(faults)
        assert not faults, f"{command.name}, {broken.label}:\n{text}\n\n{answer.output[-3000:]}"
    return answer


def run_command(command: FuzzedCommand, broken: BrokenInput | None = None) -> Answer:
    """Run ``command`` in a new folder with its files, one of which may be broken."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "work"
        folder.mkdir()
        for file, contents in command.files.items():
            if broken is None or file != broken.slot or broken.keeps_file:
                write_contents(folder / file, contents)
        if broken and broken.make:
            (folder / broken.slot).parent.mkdir(parents=True, exist_ok=True)
            broken.make(folder / broken.slot)
        before = _read_files(folder, command)
        output = Path(name) / "output"
        exit_code = _server(command).run(
            module=command.module,
            arguments=[*command.arguments, *(broken.arguments if broken else ())],
            folder=str(folder),
            output=str(output),
            deadline_s=scale_deadline(DEADLINE_S),
            memory_bytes=broken.memory_bytes if broken else None,
        )
        after = _read_files(folder, command)
        changed = tuple(file for file in before if before[file] != after[file])
        return Answer(exit_code, output.read_bytes().decode(errors="backslashreplace"), changed)


def find_faults(command: FuzzedCommand, broken: BrokenInput, answer: Answer) -> list[str]:
    """Say what is wrong with an answer."""
    faults = []
    if answer.exit_code is None:
        faults.append("does not end")
    elif answer.exit_code not in command.exit_codes:
        faults.append(f"exit code {answer.exit_code} is not documented")
    faults += [f"has changed {file}" for file in answer.changed]
    output = re.sub(command.allowed, "", answer.output) if command.allowed else answer.output
    if internal := _INTERNAL.search(output):
        faults.append(f"shows {internal.group()!r}")
    lines = answer.output.splitlines()
    if any(len(line) > MAX_LINE_CHARACTERS for line in lines):
        faults.append("writes a line that nobody reads to its end")
    controls = {
        c for c in answer.output if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r"
    }
    if controls:
        faults.append(f"writes control characters: {sorted(controls)}")
    if answer.exit_code == 0:
        if broken.must_be_refused:
            faults.append("is accepted")
    elif broken.slot and not (
        command.links.intersection(broken.fields)
        and any(f"{file}:" in answer.output for file in command.files)
    ):
        place = f"{broken.slot}:{broken.line}: " if broken.line else broken.slot
        named = [line for line in lines if place in line]
        if broken.slot == command.settings_file:
            has_named = any(_names_a_field(line, broken.fields) for line in lines)
            if broken.fields and not has_named and "extra field" not in broken.label:
                faults.append(f"does not name the setting {broken.fields[-1]!r}")
        elif not named:
            faults.append(f"does not name {place.strip()!r}")
        elif broken.fields and not any(_names_a_field(line, broken.fields) for line in named):
            faults.append(f"does not name the field {broken.fields[-1]!r}")
    elif broken.words and not any(word in answer.output for word in broken.words):
        faults.append(f"does not name {' or '.join(broken.words)}")
    return faults


def _names_a_field(line: str, fields: Sequence[str]) -> bool:
    """Whether a message names one of the fields that lead to a value, in singular or plural."""
    return any(field.rstrip("s") in line for field in fields)


def _read_files(folder: Path, command: FuzzedCommand) -> dict[str, Any]:
    """Contents of regular files, and what the others are."""
    found: dict[str, Any] = {}
    for file in command.files:
        path = folder / file
        if path.is_symlink():
            found[file] = ("link", os.readlink(path))
        elif path.is_file():
            found[file] = path.read_bytes()
        else:
            found[file] = path.stat().st_mode if path.exists() else None
    return found


class _Server:
    """The warm process whose forks become the commands."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]):
        environment = {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(command_server.__file__)), *modules],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(self, **request: Any) -> int | None:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the server of commands has ended"
        return json.loads(answer)["exit_code"]

    def close(self) -> None:
        self._process.communicate()


_servers: dict[tuple[Any, ...], _Server] = {}


def _server(command: FuzzedCommand) -> _Server:
    modules = dict.fromkeys([*command.preload, command.module])
    # Commands with the same modules share a server, whichever of them they run.
    key = (frozenset(modules), command.environment)
    if key not in _servers:
        _servers[key] = _Server(list(modules), dict(command.environment))
    return _servers[key]
