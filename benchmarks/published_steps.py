"""Published seconds of a step, of ``sync`` and of other modes side by side, with their sources."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import Split

BLOG = "DeepCoder blog, figure of seconds per iteration, read by pixel height"
ONE_STEP_OFF = "verl docs/advance/one_step_off.md"
FULLY_ASYNC = "verl docs/advance/fully_async.md"
# GPUs: seconds of update_actor and old_log_prob of Qwen2.5-Math-7B, colocated sync, H20.
SCALING_ROWS = {32: 269.80 + 107.71, 64: 133.41 + 70.26, 128: 113.81 + 53.92}


@dataclass(frozen=True)
class Row:
    """A published pair of rows, `sync` and another, with what the fit takes from the first.

    Attributes:
        profile: that has the rest.
        sampling_s: of the `sync` row.
        update_s, log_prob_s, switch_s: of the `sync` row.
        sync_s, step_s: published seconds of a step: `sync`, and the row that is predicted.
        changes: of the profile's sampling.
        streams: whether the row is of fully_async, which recomputes no log-probs.
    """

    name: str
    source: str
    profile: str
    schedule: Schedule
    split: Split
    sync_s: float
    step_s: float
    sampling_s: float
    # 0: the profile has the trainer's seconds of this very row.
    update_s: float = 0.0
    log_prob_s: float = 0.0
    switch_s: float = 0.0
    changes: tuple[tuple[str, Any], ...] = ()
    gpus: int = 0
    streams: bool = False


ONE_OFF = Schedule("one_step_off", 1)
STREAM = Schedule("in_flight", 1)


def list_fully_async() -> list[Row]:
    """verl's 7B rows: colocated sync and fully_async with half of the GPUs for each pool."""
    published = {
        32: (790.10, 357.41, 107.71, 269.80, 294.77),
        64: (365.28, 150.72, 70.26, 133.41, 189.26),
        128: (356.30, 177.85, 53.92, 113.81, 150.63),
    }
    rows = []
    for gpus, (sync, sampling, log_prob, update, step) in published.items():
        rest = sync - sampling - log_prob - update
        # Training and mini-batches of 512 prompts x 16, limit 28K.
        lengths = load_profile(Path("verl_dapo_7b_16xh20")).sampling.response_tokens
        changes = (("samples", 16), ("response_tokens", dataclasses.replace(lengths, cap=28672.0)))
        split = Split(gpus // 16, 8, gpus // 16, 8)
        rows.append(
            Row(
                f"7B, {gpus} H20, fully_async {gpus // 2}:{gpus // 2}",
                FULLY_ASYNC,
                "verl_dapo_7b_16xh20",
                STREAM,
                split,
                sync,
                step,
                sampling,
                update + rest,
                log_prob,
                0.0,
                changes,
                gpus,
                True,
            )
        )
    return rows


ROWS = [
    Row(
        "DeepCoder 1.5B maths, one-off 4:4",
        BLOG,
        "deepcoder_math_8xa100",
        ONE_OFF,
        Split(1, 4, 1, 4),
        755,
        540,
        500,
    ),
    Row(
        "DeepCoder 1.5B code, one-off 4:4",
        BLOG,
        "deepcoder_code_8xa100",
        ONE_OFF,
        Split(1, 4, 1, 4),
        880,
        450,
        410,
    ),
    Row(
        "7B DAPO FSDP2 20K, one_step_off 4:12",
        ONE_STEP_OFF,
        "verl_dapo_7b_16xh20",
        ONE_OFF,
        Split(2, 2, 2, 6),
        749,
        520,
        247,
    ),
    Row(
        "7B DAPO Megatron 8K, one_step_off 4:12",
        ONE_STEP_OFF,
        "verl_dapo_7b_16xh20",
        ONE_OFF,
        Split(2, 2, 2, 6),
        699,
        566,
        162,
        344 + 699 - 207 - 119 - 344,
        119,
        207 - 162,
        (("response_tokens", 8192.0),),
        16,
    ),
    *list_fully_async(),
    Row(
        "30B-A3B, 128 H20, fully_async 96:32",
        FULLY_ASYNC,
        "moe_30b_128xh20",
        STREAM,
        Split(12, 8, 4, 8),
        497.89,
        282.75,
        332,
        streams=True,
    ),
]
# Published gains that no prediction is made for, and why.
LEFT_OUT = {
    "NeMo-RL 1-step-off against on-policy (1.73, 1.35, 1.26; 1.60, 1.24, 0.73)": (
        "only step totals are published, no seconds of sampling and training to fit to"
    ),
    "verl v1 Qwen3.5-35B-A3B, sync against separate_async (1.62)": "only totals are published",
    "AReaL boba2 (2.77, 2.27)": "only totals are published",
}
