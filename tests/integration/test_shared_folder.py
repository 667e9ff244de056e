"""The proof of a shared checkpoint folder, on a real cluster of several nodes on this machine."""

import os
import shutil
import time
from pathlib import Path

import pytest
import ray
from omegaconf import OmegaConf
from ray.cluster_utils import Cluster

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checkpointing.shared_folder import (
    answer_token,
    check_checkpoint_folder,
    check_shared_folder,
    find_trainer_nodes,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

FIELD = "trainer.default_local_dir"


@pytest.fixture(scope="module", autouse=True)
def others():
    """A node beside this one that could train, and one that could not: address by id."""
    head = {"num_cpus": 1, "num_gpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for devices in (2, 0):
            cluster.add_node(num_cpus=1, num_gpus=devices)
        ray.init(address=cluster.address, log_to_driver=False)
        yield find_trainer_nodes(2)
    finally:
        ray.shutdown()
        cluster.shutdown()


def answer_elsewhere(folder, token, seconds):
    """On the node that a file of the test names: another disk under the same path."""
    other = Path(f"{folder}-elsewhere")
    if ray.get_runtime_context().get_node_id() != (other / "node").read_text():
        return answer_token(folder, token, seconds)
    if (other / "copied").exists():
        shutil.copytree(Path(folder) / token, other / token)
    return answer_token(str(other), token, seconds)


def test_nodes_that_share_the_folder_pass_and_leave_nothing(others, tmp_path):
    assert len(others) == 1
    check_shared_folder(FIELD, tmp_path / "new" / "run", others)
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("is_copied", "fault"),
    [
        (False, "it does not see a file that the task runner wrote there"),
        (True, "the task runner does not see what it wrote there: it is another folder"),
    ],
)
def test_a_node_with_another_folder_is_named(others, tmp_path, is_copied, fault):
    folder, other = tmp_path / "run", tmp_path / "run-elsewhere"
    other.mkdir()
    (node,) = others
    (other / "node").write_text(node)
    if is_copied:
        (other / "copied").write_text("")
    with pytest.raises(ConfigError) as refused:
        check_shared_folder(FIELD, folder, others, probe=answer_elsewhere, seconds=1)
    message = str(refused.value)
    assert f"{FIELD}={folder}: not shared by all nodes: node {others[node]}: {fault}" in message
    assert message.count("; node") == 0 and "mounted at the same path on every node" in message
    assert list(folder.iterdir()) == []


def fail(_folder, _token, _seconds):
    raise ModuleNotFoundError("No module named 'verl_pipeline'")


def die(_folder, _token, _seconds):
    os._exit(1)


@pytest.mark.parametrize("probe", [fail, die])
def test_a_node_that_cannot_be_asked_is_named(others, tmp_path, probe):
    with pytest.raises(ConfigError, match="node .*: it could not be asked") as refused:
        check_shared_folder(FIELD, tmp_path, others, probe=probe, seconds=1)
    assert ("No module named 'verl_pipeline'" in str(refused.value)) == (probe is fail)


def hang(_folder, _token, _seconds):
    time.sleep(600)


def test_a_node_that_does_not_answer_is_named(others, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "verl_pipeline.verl_adapter.checkpointing.shared_folder.ANSWER_WITHIN_S", 1.0
    )
    with pytest.raises(ConfigError, match="it did not answer within 2 s"):
        check_shared_folder(FIELD, tmp_path, others, probe=hang, seconds=1)


def make_config(folder, **settings):
    trainer = {
        "default_local_dir": str(folder),
        "resume_from_path": None,
        "save_freq": -1,
        "resume_mode": "disable",
        "n_gpus_per_node": 2,
    }
    return OmegaConf.create({"trainer": trainer | settings})


def test_a_run_without_checkpoints_writes_no_proof(tmp_path):
    check_checkpoint_folder(make_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_with_checkpoints_proves_its_folder(tmp_path):
    check_checkpoint_folder(make_config(tmp_path / "run", save_freq=10))
    assert (tmp_path / "run").is_dir()
