"""The longest sequence that the installed vLLM accepts for a model, by vLLM's own reading.

Invariant: the number comes from vLLM's check of ``max_model_len``; nothing of ``config.json`` is
interpreted here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Larger than any model's number of positions; vLLM keeps lengths in 32 bits.
_LARGEST = 2**31 - 1


class LengthError(ValueError):
    """vLLM cannot read or run the model; the message is vLLM's."""


@dataclass(frozen=True)
class SequenceLimit:
    """How long a sequence vLLM accepts.

    Attributes:
        limit: maximum number of tokens, prompt included; None: vLLM accepts any number.
        positions: number of positions that ``config.json`` names, before RoPE scaling; None: it
            names none.
        key: the field that names them, such as ``max_position_embeddings``.
        rope_parameters: the model's RoPE parameters as vLLM reads them.
    """

    limit: int | None
    positions: int | None
    key: str | None
    rope_parameters: dict[str, Any]


def read_sequence_limit(
    folder: Path, dtype: str, rope_parameters: dict[str, Any] | None = None
) -> SequenceLimit:
    """Return the limit of the model in ``folder``; the weights are not read.

    Args:
        rope_parameters: replaces the model's own parameters, as ``hf_overrides`` does.

    Raises:
        LengthError: vLLM is not installed, or refuses the model.
    """
    overrides = {"rope_parameters": rope_parameters} if rope_parameters else {}
    try:
        from vllm.config import ModelConfig

        model = ModelConfig(model=str(folder), dtype=dtype, hf_overrides=overrides)
    # A damaged config.json raises whatever its reader meets first.
    except Exception as error:
        raise LengthError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    positions, key = model.model_arch_config.derived_max_model_len_and_key
    return SequenceLimit(
        _find_longest_accepted(model),
        int(positions) if key else None,
        key,
        dict(getattr(model.hf_text_config, "rope_parameters", None) or {}),
    )


def _find_longest_accepted(model: Any) -> int | None:
    """Search with vLLM's own check: its default can be shorter, as for LongRoPE."""
    accepted, refused = 0, _LARGEST
    if _is_accepted(model, refused):
        return None
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        if _is_accepted(model, middle):
            accepted = middle
        else:
            refused = middle
    return accepted


def _is_accepted(model: Any, length: int) -> bool:
    try:
        model.get_and_verify_max_len(length)
    except ValueError:
        return False
    return True
