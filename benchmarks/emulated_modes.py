"""The trainer modes of :mod:`benchmarks.emulated_cluster`, with the inputs and overrides of runs.

Invariants:
* All modes train the same rows in the same order on the same lengths and reward times.
* All do the same computation: one update a batch from the rollout's log-probs (bypass mode); the
  emulated update takes the time of the passes that this leaves out.
* The pools are one process each, whatever their GPUs: a trainer rank for all of the trainer's, a
  server for all replicas.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.verl_modes import (
    ONE_STEP_OFF,
    ONE_STEP_OFF_MODULE,
    SEPARATE_ASYNC,
    STEPS_ONLY,
    make_separate_async,
)
from verl_pipeline.emulated.cluster import VARIABLE, EmulatedCluster
from verl_pipeline.emulated.identity import make_prompt
from verl_pipeline.planner.schedules import SYNC, Schedule
from verl_pipeline.testing import tiny_run
from verl_pipeline.testing.runs import OURS as OURS_MODULE
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING, STALENESS
from verl_pipeline.verl_adapter.emulated.plugin import (
    BYPASS_VARIABLE,
    ENGINE_DEVICE,
    ROLLOUT_NAME,
)

ROLLOUT = "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"
OURS = "trainer.v1.one_off_pipeline"
PROMPT_TOKENS = 64
PLUGIN_MODULE = "verl_pipeline.verl_adapter.emulated.plugin"
ROUTER = "verl_pipeline.verl_adapter.emulated.router.EmulatedRouter"
# Rows of batches that an asynchronous mode may ask for beyond those that are trained.
SPARE_BATCHES = 8
# Of `separate_async` with a bound on age: batches that it runs ahead. Without a number it runs one
# ahead, and trains on what is older, too.
AHEAD = (1, 2, 4)


@dataclass(frozen=True)
class EmulatedMode:
    """One way to train.

    Attributes:
        name: on the command line and in results.
        overrides: beside the common ones.
        is_colocated: whether all GPUs sample and train.
        schedule: of the planner, which is the same; None: the planner has none like it.
        ahead: of verl's `separate_async`: batches that are sampled ahead.
        is_bounded: whether that waits for what is older.
        module: for ``python -m``; all but one of verl's modes run under ours, which records them.
    """

    name: str
    overrides: tuple[str, ...]
    is_colocated: bool
    schedule: Schedule | None
    ahead: int = 0
    is_bounded: bool = False
    module: str = OURS_MODULE

    @property
    def is_recorded(self) -> bool:
        """Whether our telemetry sees it."""
        return self.module == OURS_MODULE

    @property
    def flows(self) -> bool:
        """Whether each replica begins and loads by itself."""
        return self.schedule is not None and not self.schedule.has_barrier

    @property
    def cool_down(self) -> int:
        """The last steps of a run, which do not count: nothing is submitted beside their batches.

        With a barrier a batch is sampled alone anyway, and verl's modes go on submitting.
        """
        return self.schedule.staleness if self.schedule is not None and self.flows else 0

    @property
    def is_sync(self) -> bool:
        """Whether it is verl's `sync`, with which the others are compared."""
        return self.schedule == SYNC


def list_our_modes() -> Iterator[tuple[str, str, int]]:
    """Name, kind and staleness of each of ours."""
    yield "ours:on_policy", DRAINED, 0
    yield "ours:drained", DRAINED, 1
    for kind in (ROLLING, IN_FLIGHT):
        least, most = STALENESS[kind]
        for staleness in range(least, most + 1):
            yield f"ours:{kind}:{staleness}", kind, staleness


MODES = {
    mode.name: mode
    for mode in (
        EmulatedMode("sync", ("trainer.v1.trainer_mode=sync",), True, SYNC),
        EmulatedMode(
            "colocate_async",
            (
                "trainer.v1.trainer_mode=colocate_async",
                "trainer.v1.colocate_async.num_warmup_batches=1",
            ),
            True,
            None,
        ),
        EmulatedMode("separate_async", SEPARATE_ASYNC, False, None, 1),
        *(
            EmulatedMode(
                f"separate_async:{ahead}", make_separate_async(ahead), False, None, ahead, True
            )
            for ahead in AHEAD
        ),
        EmulatedMode(
            "one_step_off",
            ONE_STEP_OFF,
            False,
            Schedule("one_step_off", 1),
            module=ONE_STEP_OFF_MODULE,
        ),
        *(
            EmulatedMode(
                name,
                (
                    f"{OURS}.weight_sync_mode={kind}",
                    f"{OURS}.staleness={staleness}",
                    f"{OURS}.correction=as_configured",
                    # The weights are no model's: there is nothing to compare log-probs of.
                    f"{OURS}.weight_check.fingerprint_syncs=0",
                    f"{OURS}.weight_check.fingerprint_every=0",
                    f"{OURS}.weight_check.log_prob_every=0",
                    f"{ROLLOUT}.nnodes=1",
                ),
                False,
                Schedule(kind, staleness),
            )
            for name, kind, staleness in list_our_modes()
        ),
    )
}


def write_inputs(folder: Path, run: EmulatedCluster) -> None:
    """Write the model, the data set, the router's settings and the run below ``folder``."""
    tiny_run.write_model(folder / "model")
    config = folder / "model" / "config.json"
    positions = {"max_position_embeddings": PROMPT_TOKENS + run.longest_response}
    config.write_text(json.dumps(json.loads(config.read_text()) | positions))
    rows = [
        {
            "data_source": "emulated",
            "prompt": [{"role": "user", "content": make_prompt(row)}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": row},
        }
        for row in range(run.batches * run.cluster.sampling.prompts)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "val.parquet")
    settings = {"router_class": ROUTER, "replicas": run.replicas}
    (folder / "router.yaml").write_text(json.dumps(settings))  # which is YAML, too
    run.write(folder / "cluster.json")


def make_environment(folder: Path) -> dict[str, str]:
    """What the processes of a run in ``folder`` are told."""
    return {
        VARIABLE: str(folder / "cluster.json"),
        BYPASS_VARIABLE: "1",
        "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
        "VERL_ENGINE_DEVICE": ENGINE_DEVICE,
        "PYTHONPATH": _find_modules(),
    }


def _find_modules() -> str:
    """Where this process finds modules, with the repository; as it is if that is among them, since
    the fork server serves equal environments only.
    """
    own, given = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    paths = given.split(os.pathsep) if given else []
    return given if own in paths else os.pathsep.join([own, *paths])


def make_overrides(folder: Path, run: EmulatedCluster, mode: EmulatedMode, steps: int) -> list[str]:
    """The overrides of a run whose inputs are in ``folder``."""
    sampling = run.cluster.sampling
    return [
        "+verl_pipeline=cpu",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'val.parquet'}",
        f"data.train_batch_size={sampling.prompts}",
        f"data.max_prompt_length={PROMPT_TOKENS}",
        f"data.max_response_length={run.longest_response}",
        "data.dataloader_num_workers=0",
        "data.shuffle=False",
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"{ACTOR}.ppo_mini_batch_size={sampling.prompts}",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.name={ROLLOUT_NAME}",
        # Past the barrier our dispatcher chooses the replicas.
        *([] if mode.flows else [f"{ROLLOUT}.router_config_path={folder / 'router.yaml'}"]),
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.n={sampling.samples}",
        f"{ROLLOUT}.max_num_seqs={run.slots}",
        f"{ROLLOUT}.max_model_len={PROMPT_TOKENS + run.longest_response}",
        f"{ROLLOUT}.calculate_log_probs=True",
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=16",
        "algorithm.adv_estimator=grpo",
        "algorithm.rollout_correction.bypass_mode=True",
        "reward.custom_reward_function.path=pkg://verl_pipeline.emulated.reward_function",
        "reward.custom_reward_function.name=compute_score",
        *([f"{OURS}.telemetry.texts_per_step=0"] if mode.is_recorded else []),
        f"trainer.total_training_steps={steps}",
        *STEPS_ONLY,
        f"trainer.default_local_dir={folder / 'run'}",
        *mode.overrides,
    ]
