"""Which prompts each batch has: selectors that learn from what earlier batches earned.

Add your own by class path, or by name with :func:`register_selector`.
"""

from verl_pipeline.curriculum.learnability import LearnabilitySelector
from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable, Selector
from verl_pipeline.curriculum.registry import load_selector, register_selector
from verl_pipeline.curriculum.similar import SimilarSelector
from verl_pipeline.curriculum.uniform import UniformSelector

__all__ = [
    "GroupOutcome",
    "LearnabilitySelector",
    "PromptTable",
    "Selector",
    "SimilarSelector",
    "UniformSelector",
    "load_selector",
    "register_selector",
]
