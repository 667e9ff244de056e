"""What a run says of itself when it starts."""

import pytest

from verl_pipeline.entry_points import OUR_ENTRY, VERLS_ENTRY
from verl_pipeline.trainer.pipeline_config import ROLLOUT, load_pipeline_config
from verl_pipeline.verl_adapter.checks.check_report import CheckReport
from verl_pipeline.verl_adapter.entry import run_plan
from verl_pipeline.verl_adapter.entry.run_plan import build_plan
from verl_pipeline.verl_adapter.entry.start_report import describe_start, suggest_memory_share
from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings

CUDA = "trainer.device=cuda"


def start(config):
    settings = load_pipeline_config(config)
    return list(describe_start(config, settings, derive_settings(config, settings)))


@pytest.mark.parametrize(("share", "unused"), [(0.5, "50 %"), (0.6, "40 %")])
def test_a_colocated_share_on_dedicated_devices_is_said_at_the_start_and_in_the_plan(
    composed, share, unused
):
    config = composed(CUDA, f"{ROLLOUT}.gpu_memory_utilization={share}")
    hint = (
        f"hint: {ROLLOUT}.gpu_memory_utilization={share} leaves {unused} of each rollout device "
        "unused, since nothing trains there; 0.85 is usual for such devices, and more sequences "
        "then run at once"
    )
    assert hint in build_plan(config, CheckReport())["pools"]
    lines = start(config)
    assert lines[-1] == hint
    assert lines[-3] == "weights drained, staleness 1"
    assert lines[-2].startswith("pools: 1 x 1 train, 1 x 1 sample; correction auto")
    assert lines[0].startswith("derived ")
    assert config.actor_rollout_ref.rollout.gpu_memory_utilization == share


@pytest.mark.parametrize(("entry", "is_listed"), [(OUR_ENTRY, True), (VERLS_ENTRY, False)])
def test_the_plan_lists_what_is_derived_before_ray_on_our_entry_only(
    composed, monkeypatch, entry, is_listed
):
    monkeypatch.setattr(run_plan, "find_entry", lambda: entry)
    derived = build_plan(composed(CUDA), CheckReport())["derived settings"]
    assert any("total_storage_size" in line for line in derived) == is_listed
    assert any("total_storage_size" not in line for line in derived)


@pytest.mark.parametrize(
    "overrides",
    [[f"{ROLLOUT}.gpu_memory_utilization=0.5"], [CUDA, f"{ROLLOUT}.gpu_memory_utilization=0.85"]],
)
def test_no_hint_on_cpus_or_where_the_memory_is_used(composed, overrides):
    config = composed(*overrides)
    assert suggest_memory_share(config) is None
    assert not any("hint:" in line for line in start(config))


def test_no_hint_where_the_trainer_shares_the_devices(composed):
    config = composed(CUDA, f"{ROLLOUT}.gpu_memory_utilization=0.5", "trainer.v1.trainer_mode=sync")
    assert not any("hint:" in line for line in build_plan(config, CheckReport())["pools"])
