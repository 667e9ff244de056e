"""The stage runner with real engines on a tiny model, stopped at different moments."""

import json
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
import yaml

from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.training_run import check_clean, kill_run, tail
from verl_pipeline.testing import runs, seeded_rollout, tiny_run
from verl_pipeline.verl_adapter.trajectories.prompt_stream import make_permutation

pytestmark = [pytest.mark.timeout(3600), pytest.mark.slow]

ROWS, SEED, PROMPT = 22, 7, 64
# By stage: last step, prompts per step, response length. Every second step has a checkpoint.
STAGES = {"first": (4, 4, 8), "second": (8, 6, 16)}


def write_run(directory: Path, **until: dict) -> list[str]:
    """Write model, data, stages and hardware below ``directory``.

    Args:
        directory: the folder.
        until: rules that end a stage, by its name.

    Returns:
        The arguments of the command, except ``--output``.
    """
    model, data = directory / "model", directory / "data"
    if not (model / "config.json").is_file():
        tiny_run.write_model(model)
        tiny_run.write_data(data / "train.parquet", ROWS)
        tiny_run.write_data(data / "heldout.parquet", 4)
    one = {"nodes": 1, "devices": 1}
    stages = {
        name: {
            "last_step": last,
            "response_length": length,
            "batch": batch,
            "mini_batch": batch,
            "samples": 4,
            "temperature": 1.0,
            "pools": {"train": one, "rollout": one},
            "until": until.get(name, {}),
        }
        for name, (last, batch, length) in STAGES.items()
    }
    run = {
        "model": str(model),
        "data": str(data),
        "prompt_length": PROMPT,
        "seed": SEED,
        "learning_rate": 5e-3,
        "save_every": 2,
        "validate_every": -1,
        "stages": stages,
        "overrides": [
            "reward.custom_reward_function.path=pkg://verl_pipeline.testing.tiny_run",
            # GRPO+ would drop nearly every response: a random model seldom ends one.
            "trainer.v1.one_off_pipeline.filters=[infrastructure]",
            f"+actor_rollout_ref.rollout.agent.agent_loop_manager_class={seeded_rollout.MANAGER}",
        ],
    }
    hardware = {
        "run": "tiny",
        "device": "cpu",
        "nodes": 1,
        "devices": 2,
        "overrides": [
            "actor_rollout_ref.model.enable_gradient_checkpointing=False",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.rollout.max_num_seqs=64",
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=16",
            "data.dataloader_num_workers=0",
        ],
    }
    for name, content in (("stages", {"tiny": run}), ("hardware", hardware)):
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return [f"--stages={directory / 'stages.yaml'}", f"--hardware={directory / 'hardware.yaml'}"]


def run_command(directory: Path, output: Path, arguments: list[str]) -> runs.Run:
    """Run the command to its end."""
    return runs.run_training(
        directory,
        [*arguments, f"--output={output}"],
        module="verl_pipeline.recipes.deepcoder.train",
    )


def read_stages(output: Path) -> dict:
    return json.loads((output / "stages.json").read_text())["stages"]


def read_metrics(output: Path, stage: str) -> dict[int, dict[str, float]]:
    lines = (output / stage / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["data"] for record in map(json.loads, lines)}


def list_expected_rows(spans: list[tuple[int, int, int]]) -> dict[int, list[int]]:
    """Return the rows of the stream that each step must train, by step.

    Args:
        spans: (first step, last step, prompts per step), in order.
    """
    stream = [int(row) for epoch in range(4) for row in make_permutation(ROWS, SEED, epoch)]
    rows, position = {}, 0
    for first, last, batch in spans:
        for step in range(first, last + 1):
            rows[step] = sorted(stream[position : position + batch])
            position += batch
    return rows


def list_sampled_rows(trajectories: list[dict]) -> dict[int, list[int]]:
    """Return the sampled rows by step; a trajectory that was sampled again counts once."""
    sessions = defaultdict(set)
    for record in trajectories:
        sessions[record["step"]].add((record["index"], record["session"]))
    return {
        step: sorted(index for index, session in pairs if session == 0)
        for step, pairs in sorted(sessions.items())
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def uninterrupted(directory, request):
    """Both stages, uninterrupted."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    request.addfinalizer(patch.undo)
    return run_command(directory / "whole", directory / "output", write_run(directory))


def test_stages_continue_steps_prompts_and_weights(uninterrupted, directory):
    assert uninterrupted.returncode == 0, tail(uninterrupted)
    check_clean(uninterrupted)
    output = directory / "output"
    state = read_stages(output)
    assert [(r["first_step"], r["ended_at"], r["start"]) for r in state.values()] == [
        (0, 4, 0),
        (4, 8, 16),
    ]
    # Four steps of 4 and four of 6 are 40 prompts: the second epoch begins within step 5.
    assert list_sampled_rows(uninterrupted.trajectories) == list_expected_rows(
        [(1, 4, 4), (5, 8, 6)]
    )
    lengths = defaultdict(int)
    for record in uninterrupted.trajectories:
        lengths[record["step"]] = max(lengths[record["step"]], len(record["response"]))
    assert {step: length for step, length in lengths.items()} == dict.fromkeys(
        range(1, 5), 8
    ) | dict.fromkeys(range(5, 9), 16)
    assert sorted(read_metrics(output, "first")) == [1, 2, 3, 4]
    assert sorted(read_metrics(output, "second")) == [5, 6, 7, 8]
    # The second stage sampled its first batch with the weights of the first stage.
    assert {tuple(r["versions"]) for r in uninterrupted.trajectories if r["step"] == 5} == {(4, 4)}
    assert (
        output / "second/checkpoints/global_step_4/actor"
    ).resolve() == output / "first/checkpoints/global_step_4/actor"


def test_a_finished_run_does_nothing_and_refuses_other_settings(uninterrupted, directory):
    assert uninterrupted.returncode == 0, tail(uninterrupted)
    before = (directory / "output/stages.json").read_text()
    again = run_command(directory / "again", directory / "output", write_run(directory))
    assert again.returncode == 0, tail(again)
    assert again.trajectories == [] and (directory / "output/stages.json").read_text() == before
    changed = run_command(
        directory / "changed",
        directory / "output",
        [*write_run(directory), "actor_rollout_ref.actor.optim.lr=1e-6"],
    )
    assert changed.returncode == 2
    assert (
        "actor_rollout_ref.actor.optim.lr: the run began with 0.005, now it is 1e-06"
        in changed.output
    )


@pytest.mark.parametrize("signal_name", ["kill", "terminate"])
def test_a_run_stopped_in_each_stage_trains_the_same(signal_name, uninterrupted, directory):
    assert uninterrupted.returncode == 0, tail(uninterrupted)
    base, output = directory / signal_name, directory / f"output-{signal_name}"
    arguments = [*write_run(directory), f"--output={output}"]
    for stage, step in (("first", 3), ("second", 7)):  # one step beyond a checkpoint
        stopped = start_and_stop(base, arguments, output / stage, step, signal_name)
        assert stopped.returncode == {"kill": -9, "terminate": 130}[signal_name], tail(stopped)
        assert read_stages(output)[stage]["status"] == "running"
    finished = run_command(base, output, arguments[:-1])
    assert finished.returncode == 0, tail(finished)
    check_clean(finished)
    assert {name: record["ended_at"] for name, record in read_stages(output).items()} == {
        "first": 4,
        "second": 8,
    }
    # The file has the trajectories of all calls. What was sampled twice must be equal, and nothing
    # else may be there.
    key = ("step", "index", "session", "prompt", "response", "versions")
    rows = [
        {json.dumps([record[name] for name in key]) for record in run.trajectories}
        for run in (uninterrupted, finished)
    ]
    assert rows[0] == rows[1]
    for stage in STAGES:
        expected, found = read_metrics(directory / "output", stage), read_metrics(output, stage)
        for step in set(expected) & set(found):
            for name in ("critic/score/mean", "actor/grad_norm", "actor/pg_loss"):
                assert found[step][name] == pytest.approx(
                    expected[step][name], rel=1e-4, abs=1e-7
                ), (step, name)
        # Only a step whose checkpoint was complete before its metrics were written may be missing.
        assert set(expected) - set(found) <= {2, 6}


def test_a_rule_ends_a_stage_at_a_checkpoint(directory):
    # The reward hardly rises within two steps, so the first stage ends at step 2, or at the next
    # checkpoint if that is complete before the training has stopped. The second stage samples again
    # what was sampled but not trained by then.
    arguments = write_run(directory, first={"plateau": {"gain": 2.0, "window": 1}})
    output = directory / "output-rule"
    first = run_command(directory / "rule", output, [*arguments, "--stage=first"])
    assert first.returncode == 0, tail(first)
    second = run_command(directory / "rule-second", output, arguments)
    assert second.returncode == 0, tail(second)
    state = read_stages(output)
    assert state["first"]["why"].startswith("plateau")
    ended = state["first"]["ended_at"]
    assert ended in (2, 4) and state["second"]["start"] == 4 * ended
    trained = {
        step: rows for step, rows in list_sampled_rows(first.trajectories).items() if step <= ended
    }
    expected = list_expected_rows([(1, ended, 4), (ended + 1, 8, 6)])
    # A batch that spans two epochs may hold a prompt twice, with the same sessions.
    assert trained | list_sampled_rows(second.trajectories) == {
        step: sorted(set(rows)) for step, rows in expected.items()
    }
    assert len(second.trajectories) == 4 * 6 * (8 - ended)


def start_and_stop(
    base: Path, arguments: list[str], stage: Path, step: int, signal_name: str
) -> runs.Run:
    """Start the command, and stop it once ``step`` of the stage is logged.

    The signal ``kill`` goes to the whole process tree, ``terminate`` to the command only.
    """
    process = runs.start_run(base, arguments, module="verl_pipeline.recipes.deepcoder.train")

    def has_logged_step():
        logs = [path.read_text() for path in stage.glob("attempts/*/metrics.jsonl")]
        return process.poll() is not None or any(f'"step":{step},' in log for log in logs)

    wait_until(has_logged_step, 600, f"step {step} of {stage.name}")
    descendants: list[psutil.Process] = []
    if process.poll() is None:
        if signal_name == "kill":
            descendants = kill_run(process)
        else:
            descendants = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
        process.wait(scale_deadline(90))
    return runs.collect_run(base, process, descendants)
