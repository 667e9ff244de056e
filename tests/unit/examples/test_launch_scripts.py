"""The launch scripts compose, pass every check that needs no GPU, and fit the nodes they name."""

import json
import re
import subprocess
import tomllib
import warnings
from pathlib import Path
from string import Template

import pytest
from hydra import compose, initialize_config_module

from tests.helpers.launch_scripts import SCRIPTS, name_script, read_commands, read_overrides
from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT
from tests.helpers.training_commands import MODEL_CONFIG
from verl_pipeline.testing.tiny_run import write_data
from verl_pipeline.verl_adapter.checks import machine_checks
from verl_pipeline.verl_adapter.checks.check_list import examine_run
from verl_pipeline.verl_adapter.entry.run_plan import build_plan
from verl_pipeline.verl_adapter.placement.ray_slots import NodeSlots, find_shortage, list_requests

# Nodes and devices of each.
HARDWARE = {
    "grpo_fsdp": (1, 8),
    "grpo_lora": (1, 4),
    "grpo_megatron": (1, 8),
    "grpo_sglang": (1, 8),
    "multi_turn_tools": (1, 8),
    "ppo_critic": (1, 8),
    "reward_model": (1, 8),
    "slurm": (2, 8),
    "two_nodes": (2, 8),
}
# What is looked at on the nodes only, beside the devices.
NOT_CHECKED = {
    "grpo_megatron": [
        "actor_rollout_ref.actor.strategy=megatron: needs megatron.core, which is not installed"
    ],
    "grpo_sglang": ["actor_rollout_ref.rollout.name=sglang: needs sglang, which is not installed"],
}
CPUS_OF_A_NODE = 64
scripts = pytest.mark.parametrize("script", SCRIPTS, ids=name_script)


@pytest.fixture(autouse=True)
def on_a_head_node(monkeypatch):
    """verl's platform is CUDA's, and no device is there, whatever the user's shell has set."""
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr("verl.utils.device.get_device_name", lambda: "cuda")
    monkeypatch.setattr(machine_checks, "has_device", lambda: False)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A model with the room of Qwen2.5's, without weights, and a data set, as variables."""
    folder = tmp_path_factory.mktemp("stand-ins")
    model, data = folder / "model", folder / "data"
    model.mkdir()
    settings = {**MODEL_CONFIG, "max_position_embeddings": 32768}
    (model / "config.json").write_text(json.dumps(settings))
    for name in ("train", "test"):
        write_data(data / f"{name}.parquet", 4)
    return {
        "MODEL": str(model),
        "REWARD_MODEL": str(model),
        "DATA": str(data),
        "OUTPUT": str(folder / "output"),
    }


@pytest.fixture
def composed_script(stand_ins, tmp_path):
    def make(script: Path, *arguments: str):
        overrides = read_overrides(script, tmp_path, *arguments, **stand_ins)
        with (
            initialize_config_module("verl_pipeline.config", version_base=None),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return compose("one_off_pipeline", overrides)

    return make


def find_script(name: str) -> Path:
    (script,) = [script for script in SCRIPTS if name_script(script) == name]
    return script


def test_every_script_is_known():
    assert [name_script(script) for script in SCRIPTS] == sorted(HARDWARE)


@scripts
def test_a_script_passes_every_check_that_needs_no_gpu_and_fits_its_nodes(composed_script, script):
    config = composed_script(script, "trainer.total_epochs=3")
    assert config.trainer.total_epochs == 3  # what the user adds comes last, and counts
    report = examine_run(config)
    assert report.errors == report.out_of_reach == []
    expected = [*NOT_CHECKED.get(name_script(script), []), "trainer.device=cuda: this machine has"]
    for note in report.not_checked:
        assert note.startswith(tuple(expected)) or "the nodes may have it" in note
    for start in expected:
        assert any(note.startswith(start) for note in report.not_checked)
    plan = build_plan(config, report)
    assert any("checkpoint_engine.backend=nccl" in line for line in plan["derived settings"])
    expected_result = (script.parent / "README.md").read_text()
    assert "\n".join(["pools", *[f"  {line}" for line in plan["pools"]]]) in expected_result
    nodes, devices = HARDWARE[name_script(script)]
    requests = list_requests(config)
    machines = [NodeSlots(f"node-{rank}", CPUS_OF_A_NODE, devices) for rank in range(nodes)]
    assert find_shortage(requests, machines, "GPU") is None
    fewer = machines[1:] or [NodeSlots("node-0", CPUS_OF_A_NODE, devices - 1)]
    assert find_shortage(requests, fewer, "GPU") is not None


@scripts
def test_without_variables_a_script_names_models_of_the_hub_and_folders_of_the_home(
    script, tmp_path
):
    overrides = dict(
        override.lstrip("+").split("=", 1) for override in read_overrides(script, tmp_path)
    )
    assert overrides["actor_rollout_ref.model.path"].startswith("Qwen/Qwen2.5-7B")
    assert overrides["data.train_files"] == f"{tmp_path}/data/gsm8k/train.parquet"
    assert overrides["trainer.default_local_dir"].startswith(f"{tmp_path}/checkpoints/")


@scripts
def test_a_script_opens_with_its_hardware_and_what_was_not_tried(script):
    lines = script.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("set -euo"))
    head = "\n".join(lines[1:end])
    assert "# Hardware: " in head and "# Not run on a GPU yet." in head
    assert script.stat().st_mode & 0o111
    assert "not run on a GPU" in (script.parent / "README.md").read_text().replace("\n", " ")


def test_bash_reads_the_script_that_starts_ray():
    command = ["bash", "-n", str(ROOT / "examples/two_nodes/start_ray.sh")]
    subprocess.run(command, check=True, timeout=scale_deadline(60))


def test_slurm_waits_for_all_nodes_before_it_trains(tmp_path):
    first, second = read_commands(find_script("slurm"), tmp_path)
    assert first[0].endswith("two_nodes/wait_for_nodes.py")
    assert first[1:] == ["2", "--address=node-1:6379"]
    assert second[:2] == ["-m", "verl_pipeline.main"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("grpo_fsdp", "trainer.n_gpus_per_node=7", "not a multiple of the data-parallel size 7"),
        (
            "grpo_megatron",
            "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=8",
            "=8: does not divide the 4 trainer ranks",
        ),
        (
            "grpo_fsdp",
            "data.max_response_length=16384",
            "a micro-batch has room for 8192 tokens",
        ),
        (
            "multi_turn_tools",
            "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agnt",
            "default_agent_loop=tool_agnt: unknown; did you mean tool_agent?",
        ),
        ("ppo_critic", "critic.model.path=/no/model", "critic.model.path=/no/model: no such"),
    ],
)
def test_the_first_slip_of_a_user_is_named(composed_script, name, override, message):
    report = examine_run(composed_script(find_script(name), override))
    assert any(message in line for line in report.errors), report.errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        # Two devices a server.
        ["actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
        # Eight samples a prompt in training, four in validation.
        [
            "actor_rollout_ref.rollout.val_kwargs.n=4",
            "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
            "actor_rollout_ref.rollout.val_kwargs.temperature=0.6",
        ],
        ["trainer.logger=[console,wandb]"],
        # Another way to share a sequence: two devices each.
        ["actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"],
        ["actor_rollout_ref.actor.use_dynamic_bsz=False", "MICRO"],
    ],
    ids=["tensor_parallel", "val_kwargs", "wandb", "ulysses", "fixed_micro_batches"],
)
def test_what_users_change_first_passes(composed_script, overrides):
    """Beside other models (Qwen3, a vision-language model), whose kind no check looks at."""
    fixed = [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16",
    ]
    overrides = [word for word in overrides if word != "MICRO"] + fixed * ("MICRO" in overrides)
    report = examine_run(composed_script(find_script("grpo_fsdp"), *overrides))
    assert report.errors == report.out_of_reach == []


@pytest.mark.slow
def test_a_file_without_tools_is_refused(composed_script, tmp_path):
    field = "actor_rollout_ref.rollout.multi_turn.function_tool_path"
    for name, text, message in (
        ("empty.py", "", "has no tools"),
        ("broken.py", "import no_such_module", "cannot be loaded .*no_such_module"),
        ("untyped.py", UNTYPED, "cannot be loaded"),
    ):
        file = tmp_path / name
        file.write_text(text)
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        script = find_script("multi_turn_tools")
        overrides = read_overrides(script, folder, f"{field}={file}")
        with initialize_config_module("verl_pipeline.config", version_base=None):
            config = compose("one_off_pipeline", overrides)
        report = examine_run(config, skip=["files", "model", "model paths"])
        (error,) = report.errors
        assert re.search(f"{field}={file}: {message}", error), error


UNTYPED = """
from verl.tools.function_tool import function_tool

@function_tool
def search(query):
    return query
"""


def test_the_calculator_computes_and_runs_nothing():
    from verl.tools.function_tool import load_function_tools_from_path

    (tool,) = load_function_tools_from_path(str(ROOT / "examples/multi_turn_tools/tools.py"))
    assert tool.tool_schema.function.parameters.required == ["expression"]
    answers = {
        "(3 + 4) * 2": "14",
        "-1/4": "-0.25",
        "1/0": "error: float division by zero",
        "__import__('os')": "error: numbers, + - * / and parentheses only",
        "2 ** 9": "error: numbers, + - * / and parentheses only",
        "1" * 300: "error: too long",
        "3 +": "error: invalid syntax",
        "'a' * 9": "error: numbers, + - * / and parentheses only",
    }
    for expression, answer in answers.items():
        assert tool.fn(expression).startswith(answer), expression


def test_the_image_is_made_of_files_that_exist_at_verls_pins():
    text = (ROOT / "examples/container/Dockerfile").read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
    for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert (ROOT / Template(source).substitute(defaults)).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert defaults["PACKAGE"] == ".[gpu]"
    assert "verl[vllm,fsdp]==" in project["optional-dependencies"]["gpu"][0]


def test_the_memory_on_the_page_is_what_its_formulas_say():
    """Qwen2.5-7B: parameters, layers, hidden size, vocabulary; tokens of a micro-batch."""
    p, layers, h, v, t = 7.62e9, 28, 3584, 152_064, 8192
    page = (ROOT / "docs/gpu-memory.md").read_text()
    same = [2.0, 2 * layers * t * h / 1e9, 34 * t * h / 1e9, 10 * t * v / 1e9]
    rows = {"parameters, gradients, AdamW": [16 * p / d / 1e9 for d in (8, 4, 2)]}
    rows["checkpoints of activations"] = [same[1]] * 3
    rows["one layer, recomputed"] = [same[2]] * 3
    rows["logits"] = [same[3]] * 3
    rows["sum"] = [value + sum(same) for value in rows["parameters, gradients, AdamW"]]
    for name, values in rows.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert [f"{value:.1f} GB" for value in values] == re.findall(r"[\d.]+ GB", line)
    for size, group in ((2, 2), (2, 4)):
        held = (6 + 12 / group) * p / size / 1e9
        assert f"{held:.1f} GB for t = {size}, d = {group}" in " ".join(page.split())
    for share in (0.5, 0.85):
        cache = share * 80e9 - 2 * p - 3e9
        tokens = round(cache / (2 * layers * 4 * 128 * 2), -3)
        assert f"={share}` | {cache / 1e9:.1f} GB | {tokens:,.0f} |" in page
