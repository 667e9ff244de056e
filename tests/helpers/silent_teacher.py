"""A teacher pool that leaves some trajectories without log-probs; imported by Ray workers.

Also writes a teacher for the tiny model.
"""

import itertools
from pathlib import Path

from verl_pipeline.testing import tiny_run
from verl_pipeline.verl_adapter.rollout.agent_loop import (
    PipelineAgentLoopManager,
    PipelineAgentLoopWorker,
)

# Of 16 trajectories of a batch, the teacher fails for one.
FAILING_EVERY = 16


class SilentTeacherWorker(PipelineAgentLoopWorker):
    """Asks verl's teacher servers, but every 16th answer is lost."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        ask, numbers = (
            self.teacher_server_manager.compute_teacher_logprobs_single,
            itertools.count(),
        )

        async def compute_teacher_logprobs_single(**arguments):
            if next(numbers) % FAILING_EVERY == 3:
                raise ConnectionError("planted: the teacher's answer was lost")
            return await ask(**arguments)

        self.teacher_server_manager.compute_teacher_logprobs_single = (
            compute_teacher_logprobs_single
        )


class SilentTeacherManager(PipelineAgentLoopManager):
    """Our manager with these workers."""

    worker_class = SilentTeacherWorker


def write_teacher(folder: Path) -> Path:
    """Write the tiny model with other weights: it prefers the target at every place."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_run.write_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    [target] = AutoTokenizer.from_pretrained(folder).encode(
        tiny_run.TARGET, add_special_tokens=False
    )
    with torch.no_grad():
        # The final norm's output has a length of sqrt(64); this adds a constant to one logit only
        # on average, which is enough for a teacher that differs from the student.
        model.lm_head.weight[target] += 0.5 * model.lm_head.weight.norm(dim=1).mean()
    model.save_pretrained(folder)
    return folder
