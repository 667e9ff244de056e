"""Our fields: defaults, documentation, refusals."""

import subprocess
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ConfigError,
    Deadlines,
    OneOffPipelineConfig,
    load_pipeline_config,
)


def test_the_yaml_holds_every_field_with_its_default(composed):
    given = OmegaConf.to_container(OmegaConf.select(composed(), PIPELINE_KEY))
    assert given == OmegaConf.to_container(OmegaConf.structured(OneOffPipelineConfig))


def test_every_field_of_the_yaml_is_explained():
    lines = (
        __import__("importlib.resources")
        .resources.files("verl_pipeline.config")
        .joinpath("one_off_pipeline.yaml")
        .read_text()
        .splitlines()
    )
    for name in [
        entry.name for schema in (OneOffPipelineConfig, Deadlines) for entry in fields(schema)
    ]:
        (row,) = [index for index, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        assert lines[row - 1].strip().startswith("#"), name


def test_without_a_block_the_defaults_hold():
    assert load_pipeline_config(OmegaConf.create({"trainer": {"v1": {}}})) == OneOffPipelineConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+{}.stalenes=0",
            "stalenes: unknown key; did you mean trainer.v1.one_off_pipeline.staleness?",
        ),
        (
            "+{}.deadlines.batch=3",
            "deadlines.batch: unknown key; did you mean .*deadlines.batch_s?",
        ),
        ("+{}.zzz=3", "zzz: unknown key; known keys: weight_sync_mode, staleness"),
        ("{}.staleness=2", "staleness=2: must be 0 or 1"),
        ("{}.staleness=fast", "staleness=fast: must be a whole number, or auto"),
        ("{}.staleness=1.5", "staleness: .*1.5"),
        ("{}.staleness=auto", "staleness=auto: needs weight_sync_mode=rolling or in_flight"),
        ("{}.min_effective_share=2", "min_effective_share=2.0: must lie between 0 and 1"),
        ("{}.min_replicas=0", "min_replicas=0: must be 1 or more"),
        ("{}.max_replicas=0", "max_replicas=0: must be .*min_replicas=1 or more, or null"),
        ("{}.slow_factor=1", "slow_factor=1.0: must be more than 1, or null"),
        ("{}.deadlines.token_s=-1", "deadlines.token_s=-1.0: must be positive"),
        ("{}.correction=none", "correction=none: must be auto or as_configured"),
        (
            "{}.max_infrastructure_share=1.5",
            "max_infrastructure_share=1.5: must lie between 0 and 1",
        ),
        ("{}.deadlines.reward_s=0", "deadlines.reward_s=0.0: must be positive"),
    ],
)
def test_a_wrong_field_is_refused_by_name_in_one_line(composed, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_pipeline_config(composed(override.format(PIPELINE_KEY)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("most=9", "auto_staleness.most=9: must be 1 to 8"),
        ("most=0", "auto_staleness.most=0: must be 1 to 8"),
        ("wait_share=1", "auto_staleness.wait_share=1.0: must be at least 0 and below 1"),
        ("least=2", "auto_staleness.least: unknown key"),
    ],
)
def test_the_bounds_of_auto_are_checked_where_it_is_used(composed, override, message):
    rolling = [f"{PIPELINE_KEY}.weight_sync_mode=rolling", f"{PIPELINE_KEY}.staleness=auto"]
    settings = load_pipeline_config(composed(*rolling))
    assert (settings.is_auto, settings.dial.staleness, settings.most_staleness) == (True, 1, 8)
    with pytest.raises(ConfigError, match=message):
        load_pipeline_config(composed(*rolling, f"++{PIPELINE_KEY}.auto_staleness.{override}"))


PROGRAM = """
import logging
import hydra

@hydra.main(config_path="{folder}", config_name="{primary}", version_base=None)
def main(config):
    logging.getLogger("a module").info("it runs")

main()
"""


@pytest.mark.parametrize(
    ("folder", "primary", "overlay"),
    [
        ("pkg://verl_pipeline.config", "one_off_pipeline", []),
        pytest.param(
            *("pkg://verl_pipeline.config", "one_off_pipeline", ["+verl_pipeline=cpu"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("pkg://verl.trainer.config", "ppo_trainer", ["+verl_pipeline=cpu"]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_hydra_writes_nothing(tmp_path, folder, primary, overlay):
    (tmp_path / "program.py").write_text(PROGRAM.format(folder=folder, primary=primary))
    done = subprocess.run(
        [sys.executable, "program.py", *overlay], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "it runs" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
