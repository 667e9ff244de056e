"""Which responses were truncated, worked out from their lengths and last tokens.

A generation ends with an end-of-sequence token or at its length limit. So a response is truncated
if it has reached its limit and its last token is no end-of-sequence token; one that ends exactly at
the limit is not. vLLM's ``finish_reason`` says the same, but verl 0.9.1 folds ``stop`` and
``length`` into ``completed`` before the trainer sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LengthLimits:
    """Length limits of responses, computed as verl's rollout servers do for each request.

    Attributes:
        prompt_length, response_length: ``actor_rollout_ref.rollout``'s, in tokens.
        max_model_len: the engine's, in tokens.
        end_ids: end-of-sequence tokens.
    """

    prompt_length: int
    response_length: int
    max_model_len: int
    end_ids: frozenset[int]

    def compute_limits(self, prompt_lengths: np.ndarray) -> np.ndarray:
        """Tokens that each request may generate; ``prompt_lengths`` and result: int64, (n,)."""
        total = min(self.prompt_length + self.response_length, self.max_model_len)
        return np.maximum(np.minimum(self.response_length, total - prompt_lengths), 1)

    def find_truncated(
        self, lengths: np.ndarray, limits: np.ndarray, last_tokens: Sequence[int]
    ) -> np.ndarray:
        """Which responses were truncated; bool, shape (n,).

        Args:
            lengths: response lengths in tokens, int64, shape (n,).
            limits: limits of their requests, int64, shape (n,).
            last_tokens: last token of each response; ignored for responses below their limit.
        """
        ended = np.array([token in self.end_ids for token in last_tokens], dtype=bool)
        return (lengths >= limits) & ~ended


def find_end_token_ids(
    tokenizer: Any, model_path: str, *, trust_remote_code: bool = False
) -> frozenset[int]:
    """All tokens at which vLLM ends a sequence: of tokenizer, model and generation config."""
    from transformers import AutoConfig, GenerationConfig

    found: set[int] = set()
    config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    try:
        generation_ids = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # the model ships without a generation config
        generation_ids = None
    for ids in (tokenizer.eos_token_id, config.get_text_config().eos_token_id, generation_ids):
        found |= {ids} if isinstance(ids, int) else set(ids or [])
    return frozenset(found)
