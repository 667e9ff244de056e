"""Engines check a model before it is loaded."""

import json
import shutil

import pytest

from verl_pipeline.evaluation.engines import EngineError, SampleRequest
from verl_pipeline.evaluation.engines.model_folder import (
    PositionLimit,
    hash_weights,
    read_position_limit,
)
from verl_pipeline.evaluation.engines.vllm_engine import VllmEngine
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation
from verl_pipeline.testing import tiny_run

REQUEST = SampleRequest("t", "a", 0, 1, make_conversation("write a"), prefill="aa")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("model.safetensors", "model.safetensors cannot be read"),
        ("tokenizer.json", "its tokenizer cannot be read"),
        ("chat_template.jinja", "the chat template fails"),
    ],
)
def test_a_damaged_model_is_refused_before_it_is_loaded(model, tmp_path, damaged, message):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / damaged).write_bytes(b"{% for x in %}" + bytes(9))
    with pytest.raises(EngineError, match=message):
        VllmEngine(str(folder), EngineConfig()).prompt_tokenizer.tokenize_request(REQUEST)


def test_a_folder_without_weights_is_no_model(model, tmp_path):
    shutil.copy(model / "config.json", tmp_path)
    with pytest.raises(EngineError, match="no weights in the folder"):
        VllmEngine(str(tmp_path), EngineConfig())


def test_too_long_sequences_are_refused_with_the_fix(model):
    engine = VllmEngine(str(model), EngineConfig())
    engine.check_requests([REQUEST], SamplingParameters(max_tokens=200))
    with pytest.raises(
        EngineError, match=r"holds 256 \(max_position_embeddings=256\).*max_tokens to at most 2\d\d"
    ):
        engine.check_requests([REQUEST], SamplingParameters(max_tokens=1000))
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    scaled = VllmEngine(str(model), EngineConfig(rope_parameters=yarn))
    scaled.check_requests([REQUEST], SamplingParameters(max_tokens=900))
    assert scaled.describe_settings()["rope_parameters"] == {"rope_theta": 10000.0, **yarn}, (
        "the model's own base stays"
    )
    assert (
        scaled.describe_settings()["position_limit"] == 1024
        and "yarn x 4" in scaled.describe_settings()["position_limit_rests_on"]
    )


def test_a_model_without_a_chat_template_needs_one(model, tmp_path):
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        EngineError, match=r"no chat template; name a file with one in engine.chat_template"
    ):
        VllmEngine(str(bare), EngineConfig())
    template = tmp_path / "template.jinja"
    template.write_text(tiny_run.CHAT_TEMPLATE)
    configured = VllmEngine(str(bare), EngineConfig(chat_template=str(template)))
    assert configured.prompt_tokenizer.tokenize_request(REQUEST) == VllmEngine(
        str(model), EngineConfig()
    ).prompt_tokenizer.tokenize_request(REQUEST)


def test_template_arguments_reach_the_template(model, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% if think %}<think>{% endif %}aa")
    config = EngineConfig(chat_template=str(template), chat_template_kwargs={"think": True})
    engine = VllmEngine(str(model), config)
    assert engine.prompt_tokenizer.find_thought_opening(REQUEST) == "" and "think" in str(
        engine.describe_settings()["chat_template_kwargs"]
    )
    template.write_text("{% if think %}aa<think>{% endif %}")
    changed = VllmEngine(str(model), config)
    assert changed.prompt_tokenizer.find_thought_opening(REQUEST) == "<think>\n", (
        "a thought opened by the template is part of the response"
    )
    assert changed.describe_settings() != engine.describe_settings(), (
        "a changed template under the same name changes the settings"
    )
    with pytest.raises(EngineError, match="engine.chat_template: /nowhere"):
        VllmEngine(str(model), EngineConfig(chat_template="/nowhere"))


def test_the_prompt_ends_with_the_prefill(model):
    prompts = VllmEngine(str(model), EngineConfig()).prompt_tokenizer
    assert prompts.tokenizer.decode(prompts.tokenize_request(REQUEST)).endswith(
        "<|im_start|>assistant\naa"
    )


def test_the_hash_depends_on_contents_only(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    assert hash_weights(copy) == hash_weights(model)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert hash_weights(copy) != hash_weights(model)
    assert read_position_limit(model, "float32", None) == PositionLimit(
        256, "max_position_embeddings=256"
    )
