"""Where the acceptance run reads and writes, and whether this machine has room for it.

Invariants:
* The run has a folder of its own, which every node of the run sees: below
  ``trainer.default_local_dir`` if the user names it, else a temporary one on this machine.
* The folder is removed, unless the run failed or the user keeps it.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.acceptance.plan import Plan, count_rollout_devices, read_size
from verl_pipeline.shared_memory import ADVICE, DIRECTORY
from verl_pipeline.temporary_folders import make_temporary_folder
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.pipeline_config import ROLLOUT

LOCAL_DIR = "trainer.default_local_dir"
BUCKET = f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes"
# A process that is killed leaves its folder; the next one removes it.
_PREFIX = "verl-doctor-run-"
_KEPT_PREFIX = "verl-doctor-kept-"
# Bytes of /dev/shm beside the buckets: vLLM's channels.
_MARGIN = 64 << 20


def find_fault_of_nodes(config: DictConfig, is_given: bool) -> str:
    """Why the nodes of a run may not see its folder, in one line; "" if they can.

    Args:
        is_given: whether the user names ``trainer.default_local_dir``.
    """
    fields = ("trainer.nnodes", f"{ROLLOUT}.nnodes")
    several = [field for field in fields if read_size(config, field) > 1]
    if is_given or not several:
        return ""
    shown = " ".join(f"{field}={read_size(config, field)}" for field in several)
    return (
        f"{shown}: the test's model must lie in a folder that all nodes share; add "
        f"{LOCAL_DIR}=<a folder on a shared file system>"
    )


def find_existing_ray(config: DictConfig) -> str | None:
    """The address of a Ray that the command names, which may have nodes elsewhere."""
    given = OmegaConf.select(config, "ray_kwargs.ray_init.address")
    address = given or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else str(address)


def find_shortage(config: DictConfig) -> str:
    """What /dev/shm of this machine lacks for the weights of a run on CPUs, in one line, or ""."""
    needed, bucket = _MARGIN, OmegaConf.select(config, BUCKET)
    if OmegaConf.select(config, "trainer.device") == "cpu" and isinstance(bucket, int):
        # Each rollout worker receives weights in two buckets.
        needed += 2 * count_rollout_devices(config) * (bucket << 20)
    try:
        free = shutil.disk_usage(DIRECTORY).free
    except OSError as error:
        return f"{DIRECTORY}: cannot be used ({error.strerror}); {ADVICE}"
    if free >= needed:
        return ""
    return (
        f"{DIRECTORY} has {free >> 20} MiB free, and this run needs {needed >> 20} MiB "
        f"({BUCKET}={bucket}); {ADVICE}"
    )


def make_folder(config: DictConfig, is_given: bool) -> Path:
    """Make the folder of a run.

    Raises:
        OSError: it cannot be made.
    """
    if not is_given:
        return make_temporary_folder(_PREFIX)
    parent = Path(str(OmegaConf.select(config, LOCAL_DIR))).resolve()
    parent.mkdir(parents=True, exist_ok=True)
    return Path(
        tempfile.mkdtemp(prefix=f"doctor-{time.strftime('%Y-%m-%d_%H-%M-%S')}-", dir=parent)
    )


def remove_folder(folder: Path) -> None:
    """Remove the folder of a run."""
    shutil.rmtree(folder, ignore_errors=True)


def keep_folder(folder: Path) -> Path:
    """Keep the folder of a run after the end of this process; returns where it is then."""
    if not folder.name.startswith(_PREFIX):
        return folder
    return folder.rename(folder.with_name(folder.name.replace(_PREFIX, _KEPT_PREFIX, 1)))


def write_inputs(plan: Plan, folder: Path) -> None:
    """Write model and data below ``folder``."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    tiny_run.write_model(folder / "model", plan.sizes)
    tiny_run.write_data(folder / "train.parquet", plan.rows)
