"""The table of metrics: its page is current, and every logged name is in it."""

import ast
import importlib
import inspect
import itertools
import re

import numpy as np
import pytest

from tests.helpers.repository import ROOT
from verl_pipeline.curriculum import GroupOutcome
from verl_pipeline.curriculum.measures import CurriculumMeasures
from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.checkpoint_evaluation import make_metrics
from verl_pipeline.filters import BatchView
from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.filters.zero_variance import ZeroVarianceFilter
from verl_pipeline.metrics import METRICS, OWN_METRICS, VERL_METRICS, find_metric
from verl_pipeline.metrics.__main__ import render_page
from verl_pipeline.telemetry.step_line import compute_step_metrics
from verl_pipeline.trainer.batch import (
    SamplingReport,
    TrajectoryBatch,
    check_failures,
    compute_reward_metrics,
    compute_sampling_metrics,
)
from verl_pipeline.trainer.off_policy import RowDivergence, measure_divergence
from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.trainer.run_dial import RunDial
from verl_pipeline.trainer.step_metrics import StepClock
from verl_pipeline.trainer.validation import select_graded


def list_names(metric):
    """The names that an entry stands for, with an invented text for each ``<word>``."""
    parts = [
        part[1:-1].split(",") if part.startswith("{") else [re.sub(r"<\w+>", "some", part)]
        for part in re.split(r"(\{[^}]+\})", metric.name)
    ]
    return ["".join(choice) for choice in itertools.product(*parts)]


def test_the_page_is_what_the_table_says():
    written = (ROOT / "docs/metrics.md").read_text()
    assert written == render_page(), "python -m verl_pipeline.metrics > docs/metrics.md"


def test_every_name_leads_to_one_entry():
    found = {name: find_metric(name) for metric in METRICS for name in list_names(metric)}
    for metric in METRICS:
        for name in list_names(metric):
            assert found[name] is metric, f"{name}: {found[name]}"
            # A name of verl's is no name of ours, and the other way round.
            others = VERL_METRICS if metric in OWN_METRICS else OWN_METRICS
            assert not [other for other in others if other.matches(name)]
    assert find_metric("timing_s/wait_rollout") is None and find_metric("val-core/x") is None


def make_batch():
    """Two groups of four with every kind of row that a filter or a grader sets apart."""
    n = 8
    view = BatchView(
        uids=["b2p0"] * 4 + ["b2p1"] * 4,
        sessions=np.arange(n) % 4,
        rewards=np.array([np.nan, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        verdicts=["infrastructure", *["accepted"] * 7],
        response_lengths=np.arange(n) + 1,
        limits=np.full(n, 8),
        truncated=np.arange(n) == 7,
    )
    figures = '{"grading_s": 1.0, "busy": 2}'
    reports = [
        {"grader": "code", "verdict": verdict, "tier": "namespaces", "figures": figures}
        for verdict in view.verdicts
    ]
    keys = [f"{uid}_{row % 4}_0" for row, uid in enumerate(view.uids)]
    versions = np.ones((n, 2), dtype=int)
    return TrajectoryBatch(keys, versions, view, reports, generated_at=12.5, completed_at=13.5)


def list_logged_by_functions():
    """What the functions that compute our metrics return."""
    batch = make_batch()
    clock = StepClock()
    for around in ("step", "save_checkpoint", "testing"):
        with clock.inside(around):
            clock.events["wait_rollout"] = 0.25
            if around != "save_checkpoint":
                clock.events["update_weights"] = 0.25
    timers = {"step": 9.0, "gen": 0.5, "save_checkpoint": 2.0, "testing": 2.0}
    verls, ours = clock.split(timers, is_sampled_ahead=True)
    assert all(find_metric(f"timing_s/{name}") in VERL_METRICS for name in verls)
    values = {
        "reward": [1.0, 0.0, float("nan")],
        "format": [1.0, "none", 1.0],
        "grader": ["code"] * 3,
        "verdict": ["accepted", "wrong_answer", "infrastructure"],
    }
    report = SamplingReport({"b2p0": 4, "b2p1": 4}, 0, None)
    row = {
        "tasks": {
            "aime2024": {
                "samples": 4,
                "failed": 1,
                "mean_tokens": 9.0,
                "truncated": 1,
                "pass@1": {"value": 0.5, "low": 0.25, "high": 0.75},
                "mean_reward": {"value": 1.5, "low": 1.25, "high": 1.75},
                "caveats": [Caveat("limited", "the first 4 problems", "first4").as_dict()],
            }
        }
    }
    one = np.ones(1)
    curriculum = CurriculumMeasures(2)
    outcomes = [GroupOutcome(row, np.array([0.0, 1.0]), one, 1, True) for row in (0, 1)]
    floor, predicted = np.array([True, False]), np.array([0.5, 0.5])
    dial = RunDial(OneOffPipelineConfig(weight_sync_mode="rolling", staleness="auto"))
    return {
        **ours,
        **measure_divergence(RowDivergence(one.astype(int), one.astype(int), one, one, one)),
        **curriculum.measure(outcomes, floor, predicted),
        **dial.end_step(1, {}, {"step": 1.0})[0],
        **compute_sampling_metrics(batch, 2, submitted_at=10.0),
        **compute_reward_metrics(batch.reward_reports),
        **check_failures(2, report, batch, max_share=1.0),
        **apply_filters([ZeroVarianceFilter()], batch.view, report.group_sizes).metrics,
        **select_graded(["tiny"] * 3, ["a", "b", "c"], values, None).metrics,
        **make_metrics(row),
        **compute_step_metrics([], 0.0, 1.0, rollout_busy=0.5, generated_at=[1.0, 2.0], tokens=8),
    }


# Logged where an engine or verl's loop runs; the training runs of tests/e2e show most of them.
LITERALS = {
    "pipeline/weight_sync/count": "verl_pipeline.verl_adapter.rollout.rollout_pool",
    "pipeline/weight_sync/seconds": "verl_pipeline.verl_adapter.rollout.rollout_pool",
    "pipeline/weight_sync/aborted_requests": "verl_pipeline.verl_adapter.rollout.rollout_pool",
    "weight_sync/bytes": "verl_pipeline.weight_sync.gloo_broadcast",
    "weight_sync/tensors": "verl_pipeline.weight_sync.gloo_broadcast",
    "pipeline/weights/checked_tensors": "verl_pipeline.verl_adapter.weights.weight_fingerprints",
    "pipeline/weights/unchecked_tensors": "verl_pipeline.verl_adapter.weights.weight_fingerprints",
    "pipeline/weights/compare_s": "verl_pipeline.verl_adapter.rollout.rollout_pool",
    "pipeline/weights/log_prob_gap": "verl_pipeline.verl_adapter.rollout.log_prob_check",
    "checkpoint_engine/changed_ratio": "verl.checkpoint_engine.delta_checkpoint_engine",
    **dict.fromkeys(
        [
            f"pipeline/replicas/{name}"
            for name in ("living", "lost", "rejoined", "resampled_trajectories")
        ],
        "verl_pipeline.verl_adapter.rollout.replica_patrol",
    ),
    "{PREFIX}/missing": "verl_pipeline.verl_adapter.trainers.validating_trainer",
    "{PREFIX}/version": "verl_pipeline.trainer.validation",
    "curriculum/longest_wait": "verl_pipeline.curriculum.curriculum",
    "filters/skipped_update": "verl_pipeline.verl_adapter.trainers.filtering_trainer",
    "filters/replaced_batches": "verl_pipeline.verl_adapter.trainers.filtering_replay_buffer",
}


def read_source(module):
    """The text of a module that may not be importable here."""
    return importlib.util.find_spec(module).loader.get_source(module)


def test_every_metric_of_ours_is_logged_and_every_logged_one_is_in_the_table():
    logged = list_logged_by_functions()
    assert [name for name in logged if find_metric(name) not in OWN_METRICS] == []
    literals = [name for name, module in LITERALS.items() if f'"{name}"' in read_source(module)]
    assert literals == list(LITERALS)
    everything = [*logged, *(name.split("/", 1)[1] for name in literals)]
    never = [
        name
        for metric in OWN_METRICS
        for name in list_names(metric)
        if not any(re.fullmatch(re.escape(name).replace("some", ".+"), other) for other in logged)
        and not any(
            re.sub("some", "changed_ratio", name).endswith(f"/{other}") for other in everything
        )
    ]
    assert never == []


# In verl's sources, but never logged: renamed, and a prefix.
NOT_LOGGED = ("critic/mfu", "rollout/moe")


def find_literal_names(module):
    """Texts of a module that look like a metric of verl's."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    families = {re.split(r"[/{<]", metric.name)[0] for metric in VERL_METRICS} - {""}
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(families)))})(?:/[\w@]+)+")
    return {text for text in texts if pattern.fullmatch(text)}


@pytest.mark.parametrize(
    "module",
    [
        "verl.trainer.ppo.v1.trainer_base",
        "verl.trainer.ppo.metric_utils",
        "verl.trainer.ppo.core_algos",
        "verl.trainer.ppo.rollout_corr_helper",
        "verl.utils.debug.metrics",
        "verl.workers.utils.losses",
    ],
)
def test_every_name_in_verls_sources_is_in_the_table(module):
    names = find_literal_names(module) - set(NOT_LOGGED)
    assert [name for name in sorted(names) if find_metric(name) is None] == []
    assert names or module == "verl.trainer.ppo.rollout_corr_helper"


def test_every_timer_of_verls_trainers_is_in_the_table():
    for module in ("trainer_base", "trainer_sync"):
        source = inspect.getsource(importlib.import_module(f"verl.trainer.ppo.v1.{module}"))
        timers = set(re.findall(r'marked_timer\("(\w+)"', source))
        # It ends after the step's metrics are logged.
        timers -= {"dump_rollout_generations"}
        assert timers and [t for t in timers if find_metric(f"timing_s/{t}") is None] == []


def test_the_statistics_of_the_correction_are_in_the_table():
    source = inspect.getsource(importlib.import_module("verl.trainer.ppo.rollout_corr_helper"))
    names = set(re.findall(r'metrics\["(\w+)"\]', source))
    assert len(names) > 20
    assert [name for name in names if find_metric(f"rollout_corr/{name}") is None] == []
