"""What engines know of a model before it is loaded."""

import json
import shutil

import pytest

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import EngineError, Request
from verl_pipeline.evaluation.engines.tokens import Positions, positions, weights_hash
from verl_pipeline.evaluation.engines.vllm import VllmEngine
from verl_pipeline.evaluation.task import Sampling, asked
from verl_pipeline.testing import tiny

REQUEST = Request("t", "a", 0, 1, asked("write a"), prefill="aa")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("model"))


def test_what_is_too_long_is_refused_with_the_fix(model):
    engine = VllmEngine(str(model), EngineConfig())
    engine.check_lengths([REQUEST], Sampling(max_tokens=200))
    with pytest.raises(
        EngineError, match=r"holds 256 \(max_position_embeddings=256\).*max_tokens to at most 2\d\d"
    ):
        engine.check_lengths([REQUEST], Sampling(max_tokens=1000))
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    scaled = VllmEngine(str(model), EngineConfig(rope_parameters=yarn))
    scaled.check_lengths([REQUEST], Sampling(max_tokens=900))
    assert scaled.settings()["rope_parameters"] == {"rope_theta": 10000.0, **yarn}, (
        "the model's own base stays"
    )
    assert (
        scaled.settings()["position_limit"] == 1024
        and "yarn x 4" in scaled.settings()["position_limit_rests_on"]
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
    template.write_text(tiny.CHAT_TEMPLATE)
    given = VllmEngine(str(bare), EngineConfig(chat_template=str(template)))
    assert given.prompts.tokens(REQUEST) == VllmEngine(str(model), EngineConfig()).prompts.tokens(
        REQUEST
    )


def test_arguments_reach_the_template(model, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% if think %}<think>{% endif %}aa")
    config = EngineConfig(chat_template=str(template), chat_template_kwargs={"think": True})
    engine = VllmEngine(str(model), config)
    assert engine.prompts.opening(REQUEST) == "" and "think" in str(
        engine.settings()["chat_template_kwargs"]
    )
    template.write_text("{% if think %}aa<think>{% endif %}")
    changed = VllmEngine(str(model), config)
    assert changed.prompts.opening(REQUEST) == "<think>\n", (
        "a thought that the template opens is part of the response"
    )
    assert changed.settings() != engine.settings(), (
        "another template under the same name is another way of asking"
    )
    with pytest.raises(EngineError, match="engine.chat_template=/nowhere"):
        VllmEngine(str(model), EngineConfig(chat_template="/nowhere"))


def test_the_prompt_ends_with_the_beginning_of_the_answer(model):
    prompts = VllmEngine(str(model), EngineConfig()).prompts
    assert prompts.tokenizer.decode(prompts.tokens(REQUEST)).endswith("<|im_start|>assistant\naa")


def test_the_hash_is_of_contents(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    assert weights_hash(copy) == weights_hash(model)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_hash(copy) != weights_hash(model)
    assert positions(model, None) == Positions(256, "max_position_embeddings=256")
