"""A model's folder, tokenizer and limits, looked at before the model is loaded.

Invariants:
* The weights' hash covers every file that decides what is generated, whatever the folder is called.
* A conversation becomes tokens here, for every engine that takes tokens.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import EngineError, Request

# Of a model's folder: weights, and what makes prompts of conversations.
_HASHED = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")


def model_folder(name: str) -> Path:
    """The local folder ``name``, or that of the hub's model, which is fetched.

    Raises:
        EngineError: neither is there.
    """
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise EngineError(
                f"model={name}: no config.json in the folder: a model in Hugging Face's format is "
                "needed"
            )
        return Path(name)
    if name.startswith((".", "/", "~")):
        raise EngineError(f"model={name}: no such folder")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name))
    except Exception as error:  # the client's errors have no common base class; the cause is kept
        raise EngineError(
            f"model={name}: no such folder, and the hub has not given it: {error}"
        ) from error


def weights_hash(folder: Path) -> str:
    """SHA-256 of the names and contents of the files that decide what is generated."""
    whole = hashlib.sha256()
    for path in sorted({path for pattern in _HASHED for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            whole.update(
                f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return whole.hexdigest()


class Prompts:
    """Makes tokens of conversations.

    Args:
        folder: of the model.
        config: for ``chat_template``.

    Raises:
        EngineError: the model has no chat template and none is given.
    """

    def __init__(self, folder: Path, config: EngineConfig):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._kwargs = config.chat_template_kwargs
        if config.chat_template:
            try:
                self.tokenizer.chat_template = Path(config.chat_template).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise EngineError(
                    f"engine.chat_template={config.chat_template}: {error}"
                ) from error
        if not self.tokenizer.chat_template:
            raise EngineError(
                f"{folder}: the tokenizer has no chat template; name a file with one in "
                "engine.chat_template (a base model has to be asked in the form it was "
                "trained on)"
            )

    def tokens(self, request: Request) -> list[int]:
        """Token ids of the conversation up to where the model goes on."""
        return self.tokenizer(self._text(request) + request.prefill, add_special_tokens=False)[
            "input_ids"
        ]

    def opening(self, request: Request) -> str:
        """``<think>`` if the template opens the model's thoughts, so that a response which never
        ends them shows it.
        """
        return "<think>\n" if self._text(request).rstrip().endswith("<think>") else ""

    def _text(self, request: Request) -> str:
        messages = [dict(message) for message in request.messages]
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **self._kwargs
        )


@dataclass(frozen=True)
class Positions:
    """How long a sequence may be.

    Attributes:
        limit: tokens that the model has positions for.
        rests_on: in words, what that rests on.
        rope_parameters: the model's own with the given ones over them, for the engine; None:
            nothing is changed.
    """

    limit: int
    rests_on: str
    rope_parameters: dict[str, Any] | None = None


def positions(folder: Path, given: dict[str, Any] | None) -> Positions:
    """Of a model, perhaps scaled by ``given`` (``engine.rope_parameters``)."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    own = getattr(config, "rope_parameters", None) or {}
    limit = int(config.max_position_embeddings)
    if not given:
        kind = own.get("rope_type", "default")
        scaled = (
            "" if kind == "default" else f", scaled by the model's own {kind} x {own.get('factor')}"
        )
        return Positions(limit, f"max_position_embeddings={limit}{scaled}")
    base = int(given.get("original_max_position_embeddings", limit))
    scaling = (
        f"{given['rope_type']} x {given['factor']:g} of {base} positions (engine.rope_parameters)"
    )
    # What is not given, like the base of the frequencies, stays the model's own.
    return Positions(
        int(base * given["factor"]),
        scaling,
        {**own, "original_max_position_embeddings": base, **given},
    )
