"""A process that only trains and saves: verl's FSDP engine for checkpoints, our names around it.

No rollout, no Ray: it starts in a second, so that a hundred kills within the writes of verl and
torch take minutes. It is forked by a process that has imported everything.
"""

import os
import random
import signal
import time
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from tests.chaos.killed_run import list_writes
from tests.helpers.written_checkpoints import make_config
from verl_pipeline.processes import signal_on_parent_death
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import get_step_folder
from verl_pipeline.verl_adapter.checkpointing.checkpoint_manifest import (
    find_damage,
    list_files,
    seal_parts,
)
from verl_pipeline.verl_adapter.checkpointing.run_checkpoints import RunCheckpoints


class EngineWriter:
    """One rank of verl's FSDP2 with a tiny model; each update depends on all before it.

    Args:
        model: a folder in Hugging Face's format.
        folder: the checkpoints.
        store: a file that the process group is made with; a new one for each process.
    """

    def __init__(self, model: Path, folder: Path, store: Path, *overrides: str):
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=0, world_size=1
        )
        torch.manual_seed(0)
        self.config = make_config(folder, *overrides)
        self.network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
        fully_shard(self.network, mesh=init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",)))
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        self.optimizer, self.schedule = optimizer, schedule
        self.manager = FSDPCheckpointManager(
            self.network, optimizer, schedule, AutoTokenizer.from_pretrained(model)
        )
        self.folder = folder
        self.checkpoints = RunCheckpoints(self.config)

    def resume(self) -> int:
        """Load the newest checkpoint; returns its step, 0 if there is none."""
        with self.checkpoints.load_newest(find_damage):
            if self.config.trainer.resume_mode == "disable":
                return 0
            place = Path(self.config.trainer.resume_from_path)
            self.manager.load_checkpoint(str(place / "actor"))
            step = int(place.name.removeprefix("global_step_"))
            assert torch.load(place / "data.pt") == {"position": step}
            return step

    def update(self) -> None:
        """One step on tokens that torch's random state gives: it must be restored, too."""
        tokens = torch.randint(0, self.network.config.vocab_size, (2, 8))
        self.network(input_ids=tokens, labels=tokens).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()

    def save(self, step: int) -> None:
        """As the trainer does, with verl's order of writes."""

        def write() -> None:
            place = get_step_folder(Path(self.config.trainer.default_local_dir), step)
            self.manager.save_checkpoint(str(place / "actor"), None, step, None)
            torch.save({"position": step}, place / "data.pt")

        self.checkpoints.save_step(
            step, step, write, lambda place: seal_parts(place, list_files(place))
        )
        self.checkpoints.prune(step)


def train(model: Path, folder: Path, store: Path, last_step: int) -> None:
    """Train and save every step up to ``last_step``, from the newest checkpoint on."""
    writer = EngineWriter(model, folder, store, "trainer.max_actor_ckpt_to_keep=1")
    for step in range(writer.resume() + 1, last_step + 1):
        writer.update()
        writer.save(step)


def train_in_fork(
    model: Path, folder: Path, last_step: int, kill: tuple[int, float] | None
) -> bool:
    """Train in a fork; returns whether it was killed.

    Args:
        kill: the step that must be complete first, and the seconds from the beginning of the next
            write to the kill; None: let it end.

    Raises:
        AssertionError: it ended by itself with an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = folder.with_name(f"store-{random.getrandbits(32):08x}")
    log = folder.with_name("output.log")
    child = os.fork()
    if child == 0:
        code = 1
        signal_on_parent_death(signal.SIGKILL)
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            train(model, folder, store, last_step)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1] if kill is None else _kill(child, folder, *kill)
    store.unlink(missing_ok=True)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, log.read_text()[-3000:]
    return os.WIFSIGNALED(status)


def _kill(child: int, folder: Path, step: int, seconds: float) -> int:
    """Kill it so long after it began to write what follows ``step``; returns its status."""
    began, left = None, list_writes(folder)
    is_complete = step == 0
    while began is None or time.monotonic() < began + seconds:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        is_complete = is_complete or get_step_folder(folder, step).is_dir()
        if began is None and is_complete and list_writes(folder) - left:
            began = time.monotonic()
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
