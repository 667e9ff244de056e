"""Which responses were cut off. Pure; what the rollout engine says of it does not reach verl's
trainer.

A generation ends by an end-of-sequence token or at its limit, and in no other way. So a response
was cut off if it is at its limit and its last token ends no sequence; one that ends exactly at the
limit was not. (vLLM's ``finish_reason`` would say the same; verl 0.9.1 folds ``stop`` and
``length`` into ``completed``.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Limits:
    """How long a response may become, as verl's rollout servers work it out for each request.

    Attributes:
        prompt_length, response_length: ``actor_rollout_ref.rollout``'s, in tokens.
        max_model_len: the engine's.
        end_ids: tokens that end a sequence.
    """

    prompt_length: int
    response_length: int
    max_model_len: int
    end_ids: frozenset[int]

    def of(self, prompt_lengths: np.ndarray) -> np.ndarray:
        """Tokens that each request could have generated, int64, for prompts of these lengths
        (int64, shape (n,)).
        """
        total = min(self.prompt_length + self.response_length, self.max_model_len)
        return np.maximum(np.minimum(self.response_length, total - prompt_lengths), 1)

    def truncated(
        self, lengths: np.ndarray, limits: np.ndarray, last_tokens: Sequence[int]
    ) -> np.ndarray:
        """bool, shape (n,): cut off.

        Args:
            lengths: int64, shape (n,); of the responses, in tokens.
            limits: int64, shape (n,); of their requests.
            last_tokens: of the responses; those of responses below their limit do not matter.
        """
        ended = np.array([token in self.end_ids for token in last_tokens], dtype=bool)
        return (lengths >= limits) & ~ended


def end_of_sequence_ids(
    tokenizer: Any, model_path: str, *, trust_remote_code: bool = False
) -> frozenset[int]:
    """All tokens at which vLLM ends a sequence: the tokenizer's, the model's and those of its
    generation config.
    """
    from transformers import AutoConfig, GenerationConfig

    found: set[int] = set()
    model = AutoConfig.from_pretrained(
        model_path, trust_remote_code=trust_remote_code
    ).get_text_config()
    try:
        generation = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # the model has none
        generation = None
    for ids in (tokenizer.eos_token_id, model.eos_token_id, generation):
        found |= {ids} if isinstance(ids, int) else set(ids or [])
    return frozenset(found)
