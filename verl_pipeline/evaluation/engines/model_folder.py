"""Reads a model's folder, tokenizer and position limit before the model is loaded.

Invariants:
* The position limit is vLLM's own: what vLLM accepts is accepted here.
* The hash of the weights covers every file that affects generation, whatever the folder's name.
* All engines that take tokens tokenize conversations here.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.errors import show_line
from verl_pipeline.evaluation.engines import EngineError, SampleRequest
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.input_files import InputError, check_text_file
from verl_pipeline.verl_adapter.checks.vllm_lengths import (
    LengthError,
    SequenceLimit,
    read_sequence_limit,
)

_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt")
# Weights, configuration, tokenizer and chat template.
_HASHED_PATTERNS = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")


def find_model_folder(name: str) -> Path:
    """Return the local folder ``name``, or the downloaded folder of the hub's model.

    Raises:
        EngineError: there is neither a folder nor a model of the hub.
    """
    if os.path.isdir(name):
        if not (Path(name) / "config.json").is_file():
            raise EngineError(
                f"model={name}: no config.json in the folder; name a model in Hugging Face's format"
            )
        return Path(name)
    if os.path.exists(name):
        raise EngineError(
            f"model={name}: a file; name the folder of a model, or a .jsonl file of answers"
        )
    if name.startswith((".", "/", "~")):
        raise EngineError(f"model={name}: no such folder; correct the path")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name))
    except Exception as error:  # the hub client's exceptions have no common base class
        raise EngineError(
            f"model={name}: no such folder, and the download from the hub failed: {error}"
        ) from error


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are missing or cut off, before vLLM spends minutes on them.

    Raises:
        EngineError: it is such a folder.
    """
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHT_PATTERNS):
        raise EngineError(
            f"model={folder}: no weights in the folder ({', '.join(_WEIGHT_PATTERNS)}); name the "
            "folder of a whole model"
        )
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise EngineError(
                f"model={folder}: {path.name} cannot be read ({error}); copy it again"
            ) from error


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of names and contents of the files that affect generation."""
    sha256 = hashlib.sha256()
    for path in sorted({path for pattern in _HASHED_PATTERNS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            sha256.update(
                f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return sha256.hexdigest()


class PromptTokenizer:
    """Tokenizes conversations with the model's chat template.

    Args:
        folder: folder of the model.
        config: settings with ``chat_template`` and ``chat_template_kwargs``.

    Raises:
        EngineError: neither the model nor the settings have a readable chat template.
    """

    def __init__(self, folder: Path, config: EngineConfig):
        from transformers import AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # the libraries' exceptions have no common base class
            raise EngineError(
                f"{folder}: its tokenizer cannot be read ({show_line(str(error))}); copy the "
                "model's tokenizer files into the folder"
            ) from error
        self._folder = folder
        self._kwargs = config.chat_template_kwargs
        if config.chat_template:
            try:
                check_text_file(Path(config.chat_template))
                self.tokenizer.chat_template = Path(config.chat_template).read_text()
            except (InputError, UnicodeDecodeError) as error:
                raise EngineError(f"engine.chat_template: {error}") from error
        if not self.tokenizer.chat_template:
            raise EngineError(
                f"{folder}: the tokenizer has no chat template; name a file with one in "
                "engine.chat_template (for a base model, a template of the form it was trained on)"
            )

    def tokenize_request(self, request: SampleRequest) -> list[int]:
        """Return the token ids of the conversation, including the prefill.

        Raises:
            EngineError: there are none, or the chat template fails.
        """
        text = self._render_template(request) + request.prefill
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise EngineError(
                f"{self._folder}: the tokenizer makes no token of a prompt; copy the model's "
                "tokenizer files into the folder"
            )
        return ids

    def find_thought_opening(self, request: SampleRequest) -> str:
        """Return ``<think>`` and a line break if the chat template ends with it, else nothing.

        Put before the response, it marks a response that never ends its thoughts.
        """
        return "<think>\n" if self._render_template(request).rstrip().endswith("<think>") else ""

    def _render_template(self, request: SampleRequest) -> str:
        messages = [dict(message) for message in request.messages]
        try:
            return self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **self._kwargs
            )
        except Exception as error:  # of Jinja, or whatever the template calls
            raise EngineError(
                f"{self._folder}: the chat template fails ({show_line(str(error))}); correct it, "
                "or name another in engine.chat_template"
            ) from error


@dataclass(frozen=True)
class PositionLimit:
    """The maximum length of a sequence.

    Attributes:
        limit: maximum number of tokens, prompt included; None: there is none.
        source: where the limit comes from, for messages and results.
        rope_parameters: the model's own parameters, overridden by the settings; None: unchanged.
    """

    limit: int | None
    source: str
    rope_parameters: dict[str, Any] | None = None


def read_position_limit(
    folder: Path, dtype: str, rope_overrides: dict[str, Any] | None
) -> PositionLimit:
    """Return the position limit that vLLM derives, with ``engine.rope_parameters`` if set.

    Raises:
        EngineError: vLLM refuses the model, or the model with these parameters.
    """
    try:
        own = read_sequence_limit(folder, dtype)
    except LengthError as error:
        raise EngineError(
            f"model={folder}: vLLM cannot use it ({error}); correct its config.json, or serve it "
            "with another engine (engine.kind=server)"
        ) from error
    if not rope_overrides:
        source = f"{own.key}={own.positions}" if own.key else "no limit in config.json"
        is_scaled = own.rope_parameters.get("rope_type", "default") != "default"
        scaling = f", with the model's own {_describe_rope(own)}" if is_scaled else ""
        return PositionLimit(own.limit, source + scaling)
    # Parameters without an override, such as rope_theta, stay the model's own.
    merged = {
        "original_max_position_embeddings": own.positions,
        **own.rope_parameters,
        **rope_overrides,
    }
    try:
        scaled = read_sequence_limit(folder, dtype, merged)
    except LengthError as error:
        raise EngineError(f"engine.rope_parameters={rope_overrides}: {error}") from error
    source = f"{_describe_rope(scaled)} (engine.rope_parameters)"
    return PositionLimit(scaled.limit, source, merged)


def _describe_rope(limit: SequenceLimit) -> str:
    """Return the RoPE scaling as ``yarn x 4 of 256 positions``."""
    parameters = limit.rope_parameters
    factor, original = parameters.get("factor"), parameters.get("original_max_position_embeddings")
    return (
        str(parameters.get("rope_type", "RoPE parameters of each layer type"))
        + (f" x {factor:g}" if factor else "")
        + (f" of {original} positions" if original else "")
    )
