"""Compares estimates from a model's config.json and a data sheet with published tables.

``python -m benchmarks.planner_models [--output results.json]``, from the repository's folder; a
few seconds of one core.

What ``verl-pipeline plan --model --gpu`` assumes is fitted to nothing here, but for the share of an
H20's FLOP/s that training reaches, which was chosen with verl's DAPO row in view. Lengths, batches
and rewards are those of the package's profile of the same run; models' sizes are those of their
config.json on Hugging Face.
"""

from pathlib import Path
from typing import Any

import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.planner.gain_map import SCHEDULE
from verl_pipeline.planner.gpus import find_gpu
from verl_pipeline.planner.model_profile import make_model_estimate
from verl_pipeline.planner.model_size import compute_size
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.splits import list_splits

RESULTS = Path("benchmarks/results/planner_models.json")
QWEN_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
QWEN_14B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
}
QWEN_30B_A3B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
}
# Profile of the run: model, GPU, published seconds of a step of sync and gain of one_step_off or
# the one-off pipeline (None: not published).
RUNS: dict[str, tuple[dict[str, int], str, float, float | None]] = {
    "deepcoder_math_8xa100": (QWEN_1_5B, "a100", 755.0, 1.40),
    "deepcoder_code_8xa100": (QWEN_1_5B, "a100", 880.0, 1.96),
    "deepcoder_14b_32xh100": (QWEN_14B, "h100", 2000.0, None),
    "verl_dapo_7b_16xh20": (QWEN_7B, "h20", 749.0, 1.44),
    "moe_30b_128xh20": (QWEN_30B_A3B, "h20", 497.89, None),
}


def estimate_run(name: str) -> dict[str, Any]:
    """The step of sync and the gain of the one-off pipeline, estimated and published."""
    model, gpu, step_s, gain = RUNS[name]
    work = load_profile(Path(name))
    parallel = work.sampling.tensor_parallel
    size = compute_size(model)
    estimate = make_model_estimate(work, name, size, find_gpu(gpu), work.gpus, parallel)
    planner = Planner(estimate.profile, seeds=1)
    best = planner.find_best_plan(SCHEDULE, list_splits(estimate.profile))
    return {
        "run": name,
        "published": {"sync_s": step_s, "gain": gain},
        "estimated": {"sync_s": planner.sync.step_s, "gain": best.gain},
        "sync_ratio": planner.sync.step_s / step_s,
    }


def main(output: ReportOption = RESULTS) -> None:
    """Estimate every run, and print the estimates beside what is published."""
    results = [estimate_run(name) for name in RUNS]
    ratios = [result["sync_ratio"] for result in results]
    print_table(
        [
            {
                "run": result["run"],
                "published sync s": result["published"]["sync_s"],
                "estimated sync s": result["estimated"]["sync_s"],
                "published gain": result["published"]["gain"],
                "estimated gain": result["estimated"]["gain"],
            }
            for result in results
        ],
        ["run", "published sync s", "estimated sync s", "published gain", "estimated gain"],
    )
    typer.echo(
        f"the step of sync is estimated at {format_decimal(min(ratios), 2)} to "
        f"{format_decimal(max(ratios), 2)} times the published one"
    )
    gains = [
        result["estimated"]["gain"] / result["published"]["gain"]
        for result in results
        if result["published"]["gain"]
    ]
    summary = {
        "sync_ratio": {"low": min(ratios), "high": max(ratios)},
        "gain_ratio": {"low": min(gains), "high": max(gains)},
    }
    write_report(output, "planner_models", {}, {"summary": summary, "rows": results})


if __name__ == "__main__":
    typer.run(main)
