"""A training on a Ray cluster that somebody else started, interrupted: the cluster goes on."""

import signal

import psutil
import pytest

from tests.helpers.fake_cluster import connect
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.leftovers import ENGINE_TITLE
from verl_pipeline.processes import has_ended
from verl_pipeline.testing import equivalence, runs, tiny_run
from verl_pipeline.verl_adapter.cpu.environment import CPU_ENVIRONMENT
from verl_pipeline.verl_adapter.ray_cluster import read_nodes

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


def test_an_interrupted_training_gives_back_all_that_it_held(runs_directory, monkeypatch):
    directory = runs_directory / "external-cluster"
    runs.name_temporary_folder(directory).mkdir(exist_ok=True)
    # The nodes' environment, which the workers take over.
    for name, value in (runs.make_environment(directory) | CPU_ENVIRONMENT).items():
        monkeypatch.setenv(name, value)
    with connect((8, 1), (8, 1)) as cluster:
        everything = read_nodes("GPU")
        settings = [
            *tiny_run.make_overrides(
                runs_directory, rows=equivalence.ROWS, batch=equivalence.BATCH
            ),
            "actor_rollout_ref.rollout.nnodes=1",
            "trainer.total_epochs=100000",
            f"+ray_kwargs.ray_init.address='{cluster.address}'",
            "ray_kwargs.ray_init.num_cpus=null",
            "ray_kwargs.ray_init.num_gpus=null",
        ]
        process = runs.start_run(directory, settings)
        metrics = directory / "metrics.jsonl"

        def has_finished_two_steps():
            assert process.poll() is None, (directory / "output.log").read_text()[-6000:]
            return metrics.exists() and len(metrics.read_text().splitlines()) >= 2

        wait_until(has_finished_two_steps, 600, "two steps")
        below = psutil.Process().children(recursive=True)
        engines = [child for child in below if child.name().startswith(ENGINE_TITLE)]
        assert len(engines) == 1
        # Trainer and replica are on a node each.
        free = [node.devices for node in read_nodes("GPU", free=True)]
        assert free == [0, 0]
        process.send_signal(signal.SIGINT)
        process.wait(scale_deadline(120))
        run = runs.collect_run(directory, process, engines)
        assert run.returncode == 130, tail(run)
        assert "warning: end of" not in run.output
        check_clean(run)
        assert has_ended(engines[0])
        wait_until(lambda: read_nodes("GPU", free=True) == everything, 60, "all slots to be free")
