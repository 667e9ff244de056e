"""The launch scripts of ``examples/``, and the overrides that each gives to the training.

Invariant: a script runs as its user runs it, by bash and from another folder. What it would start
is replaced on ``PATH``.
"""

import os
import subprocess
from pathlib import Path

from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT

SCRIPTS = sorted([*ROOT.glob("examples/*/run.sh"), *ROOT.glob("examples/*/run.sbatch")])
# Ends the arguments of one command.
_END = "\n"
# Write their arguments to a file; `srun` runs what follows its options, as on a node.
_PROGRAMS = {
    "python3": 'printf "%s\\0" "$@" >>"$COMMANDS"; printf "\\n\\0" >>"$COMMANDS"',
    "ray": "exit 0",
    "scontrol": "printf 'node-%s\\n' 1 2",
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
}


def name_script(script: Path) -> str:
    """The folder of a script, which names it."""
    return script.parent.name


def read_commands(script: Path, folder: Path, *arguments: str, **variables: str) -> list[list[str]]:
    """The arguments of each ``python3`` that ``script`` starts.

    Args:
        folder: an empty one.
        arguments: of the script.
        variables: of its environment.
    """
    programs, commands = folder / "bin", folder / "commands"
    programs.mkdir()
    for name, body in _PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "COMMANDS": str(commands),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node-[1-2]",
        **variables,
    }
    subprocess.run(
        ["bash", str(script), *arguments],
        cwd=folder,
        env=environment,
        check=True,
        timeout=scale_deadline(60),
    )
    words = commands.read_text().split("\0")[:-1]
    found: list[list[str]] = [[]]
    for word in words:
        if word == _END:
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]


def read_overrides(script: Path, folder: Path, *arguments: str, **variables: str) -> list[str]:
    """The overrides that ``script`` gives to the training, which it starts once."""
    trainings = [
        command[2:]
        for command in read_commands(script, folder, *arguments, **variables)
        if command[:2] == ["-m", "verl_pipeline.main"]
    ]
    (overrides,) = trainings
    return overrides
