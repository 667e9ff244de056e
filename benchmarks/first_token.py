"""Notes when vLLM gives its first token: ``VERL_USE_EXTERNAL_MODULES=benchmarks.first_token``.

Every process that imports verl loads this module. The one that serves requests appends the time
(seconds since the epoch) of its first output to the file ``$VERL_PIPELINE_FIRST_TOKEN``.
"""

import functools
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from wrapt import register_post_import_hook

PATH = "VERL_PIPELINE_FIRST_TOKEN"


def note_first_output(module: Any) -> None:
    """Wrap ``AsyncLLM.generate`` of the freshly imported ``vllm.v1.engine.async_llm``."""
    original = module.AsyncLLM.generate
    has_output = False

    @functools.wraps(original)
    async def generate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        nonlocal has_output
        async for output in original(*args, **kwargs):
            if not has_output:
                has_output = True
                with open(os.environ[PATH], "a") as file:
                    file.write(f"{time.time()}\n")
            yield output

    module.AsyncLLM.generate = generate


if PATH in os.environ:
    register_post_import_hook(note_first_output, "vllm.v1.engine.async_llm")
