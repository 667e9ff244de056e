"""The CPU platform, and that a process which has not chosen it sees nothing of it."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.patience import scale_deadline

pytestmark = pytest.mark.medium
PROBE = """
import json, sys
import verl
from verl.plugin.platform import get_platform
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({
    "platform": get_platform().device_name,
    "vllm": version("vllm"),
    "heavy": sorted({"vllm", "verl.trainer.ppo.v1", "verl.workers"} & set(sys.modules)),
    "ours": sorted(name for name in sys.modules if name.startswith("verl_pipeline")),
}))
"""


def probe(*argv, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *argv],
        env={**{k: v for k, v in os.environ.items() if k != "VERL_PLATFORM"}, **environment},
        capture_output=True,
        text=True,
        timeout=scale_deadline(240),
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_inert_unless_chosen():
    seen = probe()
    assert seen["platform"] == "cuda"
    adapter = "verl_pipeline.verl_adapter"
    # The plugin has to read the environment; nothing else of ours is loaded.
    loaded = ["verl_pipeline", "verl_pipeline.plugin", "verl_pipeline.temporary_folders"]
    assert seen["ours"] == [*loaded, adapter, f"{adapter}.cpu", f"{adapter}.cpu.environment"]
    assert seen["heavy"] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["environment", "word on the command line"])
def test_chosen_by_environment_or_by_the_overlays_word(how):
    seen = probe(VERL_PLATFORM="cpu") if how == "environment" else probe("+verl_pipeline=cpu")
    assert seen["platform"] == "cpu"
    assert seen["heavy"] == []
    assert seen["vllm"] is None or "cpu" in seen["vllm"]


def test_a_plugin_that_is_switched_off_is_reported():
    done = subprocess.run(
        [sys.executable, "-m", "verl_pipeline.cli", "doctor", "--cpu"],
        env={**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=scale_deadline(240),
    )
    assert done.returncode == 1
    assert "VERL_USE_EXTERNAL_PLUGINS" in done.stdout
