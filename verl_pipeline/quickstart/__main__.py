"""``python -m verl_pipeline.quickstart``: pipelined GRPO of a real model on a laptop CPU.

SmolLM2-135M-Instruct learns to write small Python functions; held-out problems are sampled before
and after the training.

Invariant: a run writes below ``--output`` only, apart from the model and compiled kernels, which
are cached between runs, and Ray's session folder.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.machine import list_bf16_flags
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.errors import OutputError, name_system_errors
from verl_pipeline.outputs.named_file import NamedFile
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import handle_end_signals
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import ModelUnavailableError, prepare_model
from verl_pipeline.quickstart.problems import TESTS_SOURCE, load_problems, write_parquet
from verl_pipeline.quickstart.summary import make_accuracy_table, make_pool_table
from verl_pipeline.report.run_end import write_end_report
from verl_pipeline.standard_streams import guard_streams

PROMPTS, SAMPLES = 4, 6
VALIDATION_SAMPLES = 8
# Each token costs about 13 ms of an update. Correct answers to easy and medium problems take 20 to
# 40 tokens; hard problems need more, and the model solves none of them.
RESPONSE_LENGTH = 40
DIFFICULTIES = ("easy", "medium")
# 10 days on 2 cores; the training set lasts for more.
MAX_STEPS, EPOCHS = 10_000, 1000


def make_overrides(model: Path, data: Path, output: Path, steps: int) -> list[str]:
    """Return verl's overrides for the quickstart's training.

    Args:
        model: folder of the model.
        data: folder with ``train.parquet`` and ``heldout.parquet``.
        output: folder for checkpoints and samples.
        steps: number of updates.
    """
    rewards = "reward.custom_reward_function"
    rollout = "actor_rollout_ref.rollout"
    actor = "actor_rollout_ref.actor"
    return [
        "+verl_pipeline=cpu",
        f"{rollout}.nnodes=1",
        *choose_dtype_overrides(),
        f"data.train_files={data / 'train.parquet'}",
        f"data.val_files={data / 'heldout.parquet'}",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=112",
        f"data.max_response_length={RESPONSE_LENGTH}",
        "data.dataloader_num_workers=0",
        "data.seed=1",
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        f"{actor}.optim.lr=2e-5",
        f"{actor}.ppo_mini_batch_size={PROMPTS}",
        f"{actor}.ppo_micro_batch_size_per_gpu=8",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=6",
        f"{rollout}.n={SAMPLES}",
        f"{rollout}.max_num_seqs=64",
        f"{rollout}.max_model_len=256",
        f"{rollout}.val_kwargs.n={VALIDATION_SAMPLES}",
        f"{rollout}.val_kwargs.temperature=1.0",
        f"{rollout}.val_kwargs.do_sample=True",
        "algorithm.adv_estimator=grpo",
        # Use the rollout's log-probs as old_log_prob, as DeepCoder does: this saves a forward pass,
        # a quarter of the step here.
        "trainer.v1.one_off_pipeline.correction=as_configured",
        "algorithm.rollout_correction.bypass_mode=True",
        f"{rewards}.path=pkg://verl_pipeline.rewards.code",
        f"{rewards}.name=compute_score",
        f"+{rewards}.reward_kwargs.source={TESTS_SOURCE}",
        f"trainer.total_training_steps={steps}",
        f"trainer.total_epochs={EPOCHS}",
        "trainer.val_before_train=True",
        f"trainer.test_freq={steps}",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
        "trainer.project_name=quickstart",
        "trainer.experiment_name=smollm2-135m",
        "trainer.logger=[console,file,tensorboard]",
        f"trainer.default_local_dir={output / 'checkpoints'}",
        f"trainer.validation_data_dir={output / 'heldout'}",
    ]


def choose_dtype_overrides() -> list[str]:
    """Return overrides for bf16 if the CPU multiplies it natively; else the overlay's fp32."""
    if not list_bf16_flags():
        return []
    return [
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16",
        "actor_rollout_ref.rollout.dtype=bfloat16",
    ]


def run_training(settings: list[str], output: Path, steps: int, console: Console) -> None:
    """Run the training as a child process with a progress bar.

    Raises:
        typer.Exit: the training failed; the end of its log has been printed.
    """
    log, metrics = output / "train.log", output / "metrics.jsonl"
    environment = {
        **os.environ,
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "TENSORBOARD_DIR": str(output / "tensorboard"),
    }
    with NamedFile(log, "w") as file, make_progress_bars(console) as progress:
        command = [sys.executable, "-u", "-m", "verl_pipeline.main", *settings]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=output,
        )
        task = progress.add_task("starting engines, sampling the held-out set", total=steps)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                records = read_metrics(metrics)
                updates = [record for record in records.values() if "critic/score/mean" in record]
                if updates:
                    reward = updates[-1]["critic/score/mean"]
                    progress.update(
                        task,
                        completed=len(updates),
                        description=f"training, reward {format_decimal(reward, 2)}",
                    )
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
    if process.returncode != 0:
        console.print("\n".join(log.read_text().splitlines()[-30:]), markup=False, highlight=False)
        console.print(f"the training exited with code {process.returncode}; see the log: {log}")
        raise typer.Exit(1)


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Return the metrics by step from verl's file logger; an unfinished last line is skipped."""
    if not path.exists():
        return {}
    lines = path.read_text().split("\n")[:-1]
    return {record["step"]: record["data"] for record in map(json.loads, lines)}


def main(
    steps: Annotated[
        int,
        typer.Option(min=1, max=MAX_STEPS, help="Updates; 12 take 7 to 18 minutes on 2 cores."),
    ] = 12,
    output: Annotated[Path, path_option(help="Folder for logs, samples and metrics.")] = Path(
        "outputs/quickstart"
    ),
) -> None:
    """Train, then print the gain on held-out problems and the time spent by each pool."""
    # Exit through the finally blocks, which end the training.
    handle_end_signals(lambda number, _frame: sys.exit(128 + number))
    console = Console()
    try:
        run_quickstart(output.resolve() / time.strftime("%Y-%m-%d_%H-%M-%S"), steps, console)
    except (OutputError, ModelUnavailableError) as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def run_quickstart(output: Path, steps: int, console: Console) -> None:
    """Prepare model and problems, train, and print the result.

    Args:
        output: folder of the run; it must not exist.
        steps: number of updates.

    Raises:
        OutputError: a file cannot be written.
        ModelUnavailableError: the model can neither be found nor made.
        typer.Exit: the training failed.
    """
    with name_system_errors(output):
        output.mkdir(parents=True)
    console.print("[bold]1/3[/] model: SmolLM2-135M-Instruct (from a PyPI package, converted once)")
    model = prepare_model()
    console.print(f"      {model}")
    console.print("[bold]2/3[/] problems")
    write_parquet(
        output / "data",
        [problem for problem in load_problems() if problem.difficulty in DIFFICULTIES],
    )
    console.print(f"[bold]3/3[/] one-off pipelined GRPO; log: {output / 'train.log'}")
    settings = make_overrides(model, output / "data", output, steps)
    run_training(settings, output, steps, console)
    console.print(make_accuracy_table(output / "heldout", steps))
    console.print(make_pool_table(read_metrics(output / "metrics.jsonl")))
    console.print(
        f"metrics: {output / 'metrics.jsonl'}, TensorBoard: {output / 'tensorboard'}, samples: "
        f"{output / 'heldout'}"
    )
    write_end_report(console, [output / "checkpoints"], output / "report.html")


if __name__ == "__main__":
    with guard_streams():
        typer.run(main)
