"""Measures the cost of a weight sync by item, beside a plain copy of as many bytes.

``python -m benchmarks.weight_sync [--quick] [--output results.json]``, from the repository's
folder.

The cases vary the model's size (0.1 M to 360 M parameters, fp32), the trainer ranks and the rollout
replicas; ``--quick`` measures SmolLM2-135M with one rank and one replica. The other models have
random weights. The items overlap (one bucket is sent while another is loaded), so they do not add
up:

* ``gather``: the trainer's iterator over full tensors; with several ranks, the sum over ranks;
* ``network``: rollout workers wait for and receive buckets, including gathering and packing;
* ``load``: vLLM copies a bucket into its parameters;
* ``control``: the rest of the total beside vLLM's part: the abort of requests, of which there are
  none, and the rendezvous of both pools;
* ``repack``: vLLM packs the weights for oneDNN. It is not part of the total: the first forward pass
  after the sync does it, beside the trainer's work.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.common import ReportOption, print_table, summarize_spread, write_report
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.testing import tiny_run

ROOT = Path(__file__).parents[1]
CASE_TIMEOUT_S = 900
ITEMS = ("gather", "network", "load", "repack")
# (model, trainer ranks, rollout replicas); --quick runs the first case only.
CASES = (("135M", 1, 1), ("0.1M", 1, 1), ("360M", 1, 1), ("135M", 2, 1), ("135M", 1, 2))


def write_360m(directory: Path) -> Path:
    """Write a random Llama with the shape of SmolLM2-360M (its model card on Hugging Face).

    The tokenizer is SmolLM2's.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=960,
        intermediate_size=2560,
        num_hidden_layers=32,
        num_attention_heads=15,
        num_key_value_heads=5,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(prepare_model()).save_pretrained(directory)
    return directory


# By name: bucket size in MiB, which must exceed the largest tensor, the embedding; and a function
# that returns the model's folder.
MODELS = {
    "0.1M": (16, tiny_run.write_model),
    "135M": (128, lambda _directory: prepare_model()),
    "360M": (256, write_360m),
}


def run_case(model: str, ranks: int, replicas: int, repeats: int, scratch: Path) -> dict:
    """Run one case in a process of its own.

    Raises:
        RuntimeError: the case failed; the message has the end of its output.
    """
    bucket_mb, make_folder = MODELS[model]
    output = scratch / f"{model}-{ranks}-{replicas}.json"
    case = {
        "model": str(make_folder(scratch / model)),
        "ranks": ranks,
        "replicas": replicas,
        "repeats": repeats,
        "bucket_mb": bucket_mb,
        "output": str(output),
    }
    command = [sys.executable, "-m", "benchmarks.weight_sync_case", json.dumps(case)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S)
    if run.returncode != 0:
        raise RuntimeError(
            f"{model}, {ranks} ranks, {replicas} replicas "
            f"failed:\n{(run.stdout + run.stderr)[-3000:]}"
        )
    return {"model": model, "ranks": ranks, "replicas": replicas, **json.loads(output.read_text())}


def make_table_row(result: dict) -> dict:
    """Return the medians over the syncs of a case, in seconds."""
    syncs = result["syncs"]
    spread = summarize_spread([sync["total"] for sync in syncs])
    items = {name: statistics.median(sync.get(name, 0.0) for sync in syncs) for name in ITEMS}
    replicas = result["replicas"]
    return {
        "model": result["model"],
        "ranks": result["ranks"],
        "replicas": replicas,
        "MB": result["bytes"] / 1e6,
        "total": spread["median"],
        "min": spread["min"],
        "max": spread["max"],
        "MB/s": result["bytes"] / 1e6 / spread["median"],
        **{name: value / replicas if name != "gather" else value for name, value in items.items()},
        "control": statistics.median(sync["total"] - sync["vLLM"] / replicas for sync in syncs),
        "plain copy": statistics.median(result["copy_s"]),
    }


def main(
    quick: Annotated[
        bool, typer.Option(help="SmolLM2-135M with one rank and one replica only.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Syncs of each case.")] = 8,
    output: ReportOption = Path("outputs/weight_sync.json"),
) -> None:
    """Run all cases in turn, print the results, and write the report."""
    results = []
    with tempfile.TemporaryDirectory(prefix="vpws") as scratch:
        for model, ranks, replicas in track(
            CASES[: 1 if quick else None], description="weight sync"
        ):
            wait_until_quiet()
            results.append(run_case(model, ranks, replicas, repeats, Path(scratch)))
            write_report(output, "weight_sync", {"quick": quick, "repeats": repeats}, results)
    rows = [make_table_row(result) for result in results]
    print_table(rows, list(rows[0]))
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
