"""Rolling and in-flight weights with real engines and a tail: every token within the bound, exactly
the loader's batches, nothing lost.
"""

import pytest

from tests.helpers.training_run import check_clean, make_staleness_overrides, tail
from verl_pipeline.testing import equivalence, long_tail, runs
from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.batch import check_held_version
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING
from verl_pipeline.trainer.validation import VERSION
from verl_pipeline.trainer.version_spans import parse_spans

pytestmark = pytest.mark.timeout(1200)
PIPELINE = "+trainer.v1.one_off_pipeline"
TRAJECTORIES = 16


def make_overrides(directory, mode, staleness, **pools):
    return [
        *make_staleness_overrides(directory, manager=long_tail.MANAGER, **pools),
        f"data.max_response_length={long_tail.LONG}",
        "actor_rollout_ref.rollout.max_model_len=240",
        f"{PIPELINE}.weight_sync_mode={mode}",
        f"{PIPELINE}.staleness={staleness}",
    ]


def list_violations(run, mode, staleness):
    """One sentence for each trajectory outside the bound, or not as its mode promises."""
    found = []
    for record in run.trajectories:
        k, (first, last) = record["step"], record["versions"]
        name = f"b{k} row {record['index']} session {record['session']}"
        spans = parse_spans(record["spans"])
        versions = [span.version for span in spans]
        if not schedule.oldest_allowed_version(k, staleness) <= first <= last < k:
            found.append(f"{name} was sampled with v_{first}..v_{last} at staleness {staleness}")
        if mode == ROLLING and len(spans) != 1:
            found.append(f"{name} has {len(spans)} versions")
        if (min(versions), max(versions)) != (first, last) or versions != sorted(versions):
            found.append(f"{name}: spans {spans} against v_{first}..v_{last}")
        length = long_tail.choose_length(k, record["index"], record["session"])
        if not sum(span.tokens for span in spans) == len(record["response"]) == length:
            found.append(f"{name}: {len(record['response'])} tokens of {length}, spans {spans}")
    return found


def check_run(run, sync_run, mode, staleness):
    """The bound, the batches, the counts, and that the weights were checked."""
    assert run.returncode == 0, tail(run)
    steps = range(1, equivalence.STEPS + 1)
    assert sorted(run.metrics) == list(steps)
    assert list_violations(run, mode, staleness) == []
    assert run.list_batches() == sync_run.list_batches()
    counts = [sum(record["step"] == step for record in run.trajectories) for step in steps]
    assert counts == [TRAJECTORIES] * equivalence.STEPS
    for metrics in run.metrics.values():
        assert metrics["pipeline/staleness"] <= staleness
        assert metrics["pipeline/infrastructure/share"] == 0
        assert metrics["pipeline/weights/unchecked_tensors"] == 0
    # What replicas loaded of the first versions was compared with what was sent.
    checked = [metrics["pipeline/weights/checked_tensors"] for metrics in run.metrics.values()]
    assert max(checked) == run.metrics[2]["pipeline/weight_sync/tensors"]
    assert run.metrics[1]["training/rollout_probs_diff_max"] < 1e-4


@pytest.mark.parametrize(
    "mode, staleness, pools, more",
    [
        (
            IN_FLIGHT, 2, {"replicas": 2},
            ["trainer.test_freq=4", f"{PIPELINE}.val_beside_training=true"],
        ),
        pytest.param(ROLLING, 1, {"replicas": 2}, [], marks=pytest.mark.slow),
        pytest.param(
            ROLLING, 2, {"trainers": 2, "replicas": 2}, ["trainer.test_freq=4"],
            marks=pytest.mark.slow,
        ),
        pytest.param(IN_FLIGHT, 1, {"replicas": 2}, [], marks=pytest.mark.slow),
        pytest.param(
            IN_FLIGHT, 2, {"trainers": 2, "replicas": 2}, [f"{PIPELINE}.kv=recompute"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            IN_FLIGHT, 4, {"replicas": 2}, ["trainer.save_freq=5"], marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_every_token_is_within_the_bound(sync_run, runs_directory, mode, staleness, pools, more):
    name = f"{mode}-{staleness}-{len(more)}-{len(pools)}"
    overrides = make_overrides(runs_directory / name, mode, staleness, **pools)
    run = runs.run_training(runs_directory / name, [*overrides, *more], module=runs.STOCK)
    check_run(run, sync_run, mode, staleness)
    if "trainer.test_freq=4" in more:
        # With another version than its own the validation would have ended the run.
        validated = [step for step in run.metrics if VERSION in run.metrics[step]]
        assert [run.metrics[step][VERSION] for step in validated] == [4, 8, equivalence.STEPS]
        for step in validated:
            assert any(key.startswith("val-core/") for key in run.metrics[step])
        assert (validated[0] == 4) == (len(more) == 1)
    mixed = sum(len(record["spans"]) > 1 for record in run.trajectories)
    assert (mixed > 0) == (mode == IN_FLIGHT)
    check_clean(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode, staleness, more", [(IN_FLIGHT, 3, []), (DRAINED, 1, ["drain_at_checkpoint=false"])]
)
def test_a_run_resumes_from_a_checkpoint_that_was_written_while_it_sampled(
    sync_run, runs_directory, mode, staleness, more
):
    """Stopped right after the checkpoint of step 4, with later batches sampled in part."""
    directory = runs_directory / f"{mode}-resume"
    settings = [
        *make_overrides(directory, mode, staleness, replicas=2),
        *(f"{PIPELINE}.{setting}" for setting in more),
        "trainer.save_freq=4",
        f"trainer.default_local_dir={directory}/checkpoints",
        "trainer.resume_mode=auto",
    ]
    stop = "trainer.checkpoint_callback_class=tests.helpers.stopped_run.StopAfterSave"
    first = runs.run_training(directory, [*settings, stop], module=runs.STOCK)
    assert first.returncode != 0 and "planted stop" in first.output, tail(first)
    second = runs.run_training(directory, settings, module=runs.STOCK)
    assert second.returncode == 0, tail(second)
    # One series: the first run was stopped before it logged step 4.
    assert sorted(second.metrics) == [1, 2, 3, *range(5, equivalence.STEPS + 1)]
    # What both halves have sampled counts once: the second one's is what is trained.
    latest = {(r["step"], r["index"], r["session"]): r for r in second.trajectories}
    whole = runs.Run(0, "", second.metrics, list(latest.values()), [], [])
    assert whole.list_batches() == sync_run.list_batches()
    assert list_violations(whole, mode, staleness) == []
    for metrics in second.metrics.values():
        assert metrics["pipeline/staleness"] <= staleness
        assert metrics["pipeline/infrastructure/share"] == 0


def test_another_staleness_on_resume_is_refused_if_the_held_batches_are_too_old():
    """The check that a resume makes: a batch of an in-flight run may hold old tokens."""
    with pytest.raises(ConfigError, match="holds batch 6, sampled with v_2, too old for this"):
        check_held_version(6, oldest=2, staleness=1)
    check_held_version(6, oldest=2, staleness=3)
