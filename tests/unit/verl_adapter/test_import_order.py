"""Whichever module of this room a process imports first, verl knows our trainers afterwards."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline
from verl_pipeline import verl_adapter

ROOM = Path(verl_adapter.__file__).parent
# Forks one process per module from one that has imported what is slow, but no trainer.
CHECK = """
import importlib, os, sys
import torch, transfer_queue, vllm.distributed
import verl.checkpoint_engine, verl.experimental.agent_loop, verl.utils.dataset.rl_dataset

assert "verl.trainer.ppo.v1" not in sys.modules
assert "verl_pipeline.verl_adapter.trainers.filtering_trainer" not in sys.modules
failures = 0
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
            from verl.trainer.ppo.v1 import get_trainer_cls
            for mode in ("one_off_pipeline", "sync_filtered"):
                get_trainer_cls(mode)
        except BaseException as error:
            print(name, type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    failures += os.waitpid(child, 0)[1] != 0
sys.exit(failures)
"""


@pytest.mark.medium
def test_every_module_that_imports_verls_trainers_may_be_the_first():
    names = [
        ".".join(("verl_pipeline.verl_adapter", *path.relative_to(ROOM).with_suffix("").parts))
        for path in sorted(ROOM.rglob("*.py"))
        if re.search(r"^from verl\.trainer", path.read_text(), re.MULTILINE)
    ]
    assert len(names) >= 5
    run = subprocess.run(
        [sys.executable, "-c", CHECK, *names],
        capture_output=True,
        text=True,
        timeout=scale_deadline(250),
    )
    assert run.returncode == 0, run.stdout + run.stderr
