"""The position limit of an evaluation is the one that vLLM enforces, whatever config.json says."""

import json
import shutil
import sys

import pytest

from verl_pipeline.evaluation.engines import EngineError, SampleRequest
from verl_pipeline.evaluation.engines.model_folder import read_position_limit
from verl_pipeline.evaluation.engines.vllm_engine import VllmEngine
from verl_pipeline.evaluation.eval_settings import BadSetting, EngineConfig
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation
from verl_pipeline.testing import tiny_run

config_of_vllm = pytest.importorskip("vllm.config")

REQUEST = SampleRequest("t", "a", 0, 1, make_conversation("write a"))
# The tiny model has 256 positions and heads of 32 dimensions.
LONG_FACTORS = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def make_rope(**parameters):
    return {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


# Changes to config.json, and the longest sequence that they should allow.
CONFIGS = {
    "plain": ({}, 256),
    "more positions": ({"max_position_embeddings": 4096}, 4096),
    "yarn": (make_rope(**YARN), 1024),
    "yarn as rope_scaling": ({"rope_parameters": None, "rope_scaling": YARN}, 1024),
    "yarn with the old key": (
        {"rope_parameters": None, "rope_scaling": {**YARN, "type": "yarn", "rope_type": None}},
        None,
    ),
    "yarn without original positions": (make_rope(rope_type="yarn", factor=4.0), 1024),
    "yarn with raised positions": ({"max_position_embeddings": 1024, **make_rope(**YARN)}, 1024),
    "yarn of fewer positions": (make_rope(**{**YARN, "factor": 1.5}), 384),
    "dynamic": (make_rope(rope_type="dynamic", factor=2.0), 512),
    "linear": (make_rope(rope_type="linear", factor=3.0), 768),
    "a broken factor": (make_rope(rope_type="linear", factor=1.3), 332),
    "no factor": (make_rope(rope_type="linear", factor=None), 256),
    "llama3": (make_rope(**LLAMA3, original_max_position_embeddings=128), 256),
    "longrope": (
        {"original_max_position_embeddings": 64, **make_rope(rope_type="longrope", **LONG_FACTORS)},
        256,
    ),
    "su": (
        {"original_max_position_embeddings": 64, **make_rope(rope_type="su", **LONG_FACTORS)},
        256,
    ),
    "model_max_length": ({"model_max_length": 512}, 512),
    "seq_length": ({"seq_length": 100}, 100),
    "sliding window": (
        {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0},
        256,
    ),
    "several limits": ({"max_position_embeddings": 300, "max_sequence_length": 200}, 200),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.write_model(tmp_path_factory.mktemp("model"))


def change_config(model, folder, changes):
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_the_limit_is_vllms_own(model, tmp_path, name):
    changes, expected = CONFIGS[name]
    folder = change_config(model, tmp_path / "model", changes)
    try:
        default = config_of_vllm.ModelConfig(model=str(folder), dtype="float32").max_model_len
    except Exception as error:  # vLLM refuses the model: so do we, with vLLM's reason
        assert expected is None
        with pytest.raises(EngineError, match="vLLM cannot use it") as caught:
            read_position_limit(folder, "float32", None)
        assert type(error).__name__ in str(caught.value)
        return
    limit = read_position_limit(folder, "float32", None).limit
    assert limit == expected
    # Unless it is told a length, vLLM shortens LongRoPE to the original positions.
    assert default == limit or name in ("longrope", "su")
    kwargs = {"model": str(folder), "dtype": "float32"}
    assert config_of_vllm.ModelConfig(**kwargs, max_model_len=limit).max_model_len == limit
    with pytest.raises(ValueError, match="greater than the derived max_model_len"):
        config_of_vllm.ModelConfig(**kwargs, max_model_len=limit + 1)


@pytest.mark.parametrize(
    ("own", "overrides", "expected"),
    [
        ({}, YARN, 1024),
        ({}, {"rope_type": "linear", "factor": 2}, 512),
        ({}, {"rope_type": "dynamic", "factor": 2.0}, 512),
        ({}, {**LLAMA3, "original_max_position_embeddings": 128}, 256),
        (make_rope(**YARN), {"rope_type": "yarn", "factor": 8.0}, 2048),
        (make_rope(rope_type="linear", factor=2.0), {"rope_type": "yarn", "factor": 4.0}, 1024),
    ],
)
def test_scaling_by_the_settings_is_vllms_own(model, tmp_path, own, overrides, expected):
    folder = change_config(model, tmp_path / "model", own)
    limit = read_position_limit(folder, "float32", overrides)
    assert limit.limit == expected and "engine.rope_parameters" in limit.source
    installed = config_of_vllm.ModelConfig(
        model=str(folder),
        dtype="float32",
        hf_overrides={"rope_parameters": limit.rope_parameters},
    )
    assert installed.max_model_len == expected


def test_a_model_that_vllm_cannot_run_is_refused_before_it_is_loaded(model, tmp_path):
    folder = change_config(model, tmp_path / "model", {"architectures": ["NoSuchModel"]})
    with pytest.raises(EngineError, match="vLLM cannot use it.*NoSuchModel"):
        VllmEngine(str(folder), EngineConfig()).describe_settings()


def test_an_own_limit_is_checked_against_the_model(model):
    sampling = SamplingParameters(max_tokens=100)
    with pytest.raises(EngineError, match="engine.max_model_len=1000: the model holds 256"):
        VllmEngine(str(model), EngineConfig(max_model_len=1000)).check_requests([REQUEST], sampling)
    with pytest.raises(EngineError, match=r"holds 64 \(engine.max_model_len\).* or raise engine"):
        VllmEngine(str(model), EngineConfig(max_model_len=64)).check_requests([REQUEST], sampling)


def test_what_vllm_does_not_limit_has_no_limit(model, monkeypatch):
    """A state space model has none either; vLLM's own switch lifts that of every model."""
    engine = VllmEngine(str(model), EngineConfig())
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert engine.position_limit.limit is None
    engine.check_requests([REQUEST], SamplingParameters(max_tokens=sys.maxsize // 2))


def test_longrope_needs_no_factor():
    base = ["model=m", "tasks=[gsm8k]"]
    rope = "engine.rope_parameters={rope_type: longrope, long_factor: [2.0], short_factor: [1.0]}"
    assert load_eval_config(None, [*base, rope]).engine.rope_parameters["rope_type"] == "longrope"
    with pytest.raises(BadSetting, match="give rope_type"):
        load_eval_config(None, [*base, "engine.rope_parameters={rope_type: yarn, factor: x}"])
