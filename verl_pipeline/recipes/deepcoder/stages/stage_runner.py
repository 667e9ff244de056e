"""Runs the stages one after the other, each in a training process, and resumes after any stop.

    <output>/stages.json                the state (verl_pipeline.recipes.deepcoder.stages.run_state)
    <output>/<stage>/checkpoints        verl's checkpoints
    <output>/<stage>/attempts/<n>       log and metrics of each training process
    <output>/<stage>/metrics.jsonl      merged metrics; tensorboard/ beside it

Invariants:
* Whatever decides about the next action is on disk before the action begins. A restart after a kill
  at any moment therefore continues as if the kill had not happened.
* A stage ends at a complete checkpoint. What was sampled or trained after it is sampled and trained
  again, from the same prompts.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

from rich.console import Console
from rich.progress import Progress, TaskID

from verl_pipeline.entry_checks import EXIT_BAD_CONFIG
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.recipes.deepcoder.stages.end_rules import find_end_reason, list_rule_metrics
from verl_pipeline.recipes.deepcoder.stages.run_state import (
    STATE_FILE,
    RunState,
    StageAttempt,
    StageRecord,
    check_finished_stage,
    check_identity,
    describe_identity,
    index_overrides,
    load_state,
    lock_output,
)
from verl_pipeline.recipes.deepcoder.stages.stage_checkpoints import (
    check_checkpoint,
    find_latest_step,
    link_checkpoint,
)
from verl_pipeline.recipes.deepcoder.stages.stage_checks import (
    StageError,
    StagePlan,
    list_data_files,
)
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    REWARD_METRIC,
    TRUNCATED_SHARE_METRIC,
    MetricsByStep,
    StageConfig,
)
from verl_pipeline.recipes.deepcoder.stages.stage_loader import suggest_name
from verl_pipeline.recipes.deepcoder.stages.stage_metrics import (
    get_attempt_folder,
    merge_attempts,
    write_merged_metrics,
)
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import (
    RunSettings,
    build_stream_overrides,
)
from verl_pipeline.recipes.deepcoder.stages.training_process import TrainingError, TrainingProcess
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import get_step_folder
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import restore_marker

POLL_INTERVAL_S = 0.5
# Lines of a failed training's log that its error shows.
_LOG_LINES = 30


def run_stages(
    settings: RunSettings, plans: Sequence[StagePlan], only: str | None, console: Console
) -> RunState:
    """Train every stage, or resume where an earlier call stopped.

    Args:
        settings: the settings of the run.
        plans: all stages, in order.
        only: the only stage to train; None: all.
        console: where progress is shown.

    Raises:
        UserError: something contradicts the state of the run.
        TrainingError: a training ended with an error.
    """
    with lock_output(settings.output, console) as lock:
        return _StageRunner(settings, plans, console, lock).run(only)


class _StageRunner:
    """One call of :func:`run_stages`."""

    def __init__(
        self, settings: RunSettings, plans: Sequence[StagePlan], console: Console, lock: IO[bytes]
    ):
        self.settings, self.console, self.lock = settings, console, lock
        self.plans = {plan.name: plan for plan in plans}
        self.state_file = settings.output / STATE_FILE
        config = plans[0].config
        identity = describe_identity(config, list_data_files(config, "train"))
        self.state = load_state(self.state_file) or RunState(identity)
        check_identity(self.state, identity)

    def run(self, only: str | None) -> RunState:
        """Train the stages that are not done; see :func:`run_stages`."""
        for name, plan in self.plans.items():
            record = self.state.stages.get(name)
            if record is not None and record.status == "done":
                if only is None:
                    check_finished_stage(name, record, index_overrides(plan.overrides))
                self._print_line(
                    f"stage {name}: done at step {record.end_step} ({record.end_reason})"
                )
            elif only in (None, name):
                self._train_stage(name)
            else:
                raise StageError(
                    f"--stage {only}: stage {name} before it is not done; run it first, or remove "
                    "it from the stages file"
                )
            if name == only:
                break
        return self.state

    # One stage

    def _train_stage(self, name: str) -> None:
        names = list(self.plans)
        later_names = names[names.index(name) + 1 :]
        if later := next((other for other in later_names if other in self.state.stages), None):
            raise StageError(
                f"stage {name}: the later stage {later} has begun without it; choose another "
                "--output"
            )
        self._begin_stage(name)
        stage, record = self.settings.run.stages[name], self.state.stages[name]
        end_reason: str | None = None
        with make_progress_bars(self.console) as progress:
            bar = progress.add_task(
                f"{name}: starting engines", total=stage.last_step - record.first_step
            )
            while end_reason is None:
                step = self._find_reached_step(name)
                self._update_progress(progress, bar, name)
                metrics = self._merge_metrics(name)
                end_reason = find_end_reason(stage, metrics, record.first_step, step)
                if end_reason is None:
                    end_reason = self._run_attempt(name, stage, step, progress, bar)
            self._update_progress(progress, bar, name)
        step = self._find_reached_step(name)
        record = replace(self.state.stages[name], end_step=step, end_reason=end_reason)
        self._save_record(name, record)
        checkpoints = self.settings.output / name / "checkpoints"
        self._print_line(
            f"stage {name}: done at step {step} ({end_reason}); weights: {checkpoints}"
        )

    def _begin_stage(self, name: str) -> None:
        """Record where the stage begins, and provide the checkpoint that it begins with."""
        plan, previous = self.plans[name], self._get_previous_stage(name)
        folder = self.settings.output / name / "checkpoints"
        restore_marker(folder)
        batch_size = plan.config.data.train_batch_size
        record = self.state.stages.get(name)
        if record is None:
            first_step = previous[1].end_step or 0 if previous else 0
            first_prompt = previous[1].count_prompts(first_step) if previous else 0
            record = StageRecord(first_step, first_prompt, batch_size, {})
        elif (
            find_latest_step(folder) not in (None, record.first_step)
            and record.batch_size != batch_size
        ):
            raise StageError(
                f"stage {name}: data.train_batch_size={batch_size}: the stage was trained with "
                f"{record.batch_size}, and its position in the data depends on that; restore the "
                "value, or choose another --output"
            )
        overrides = index_overrides(plan.overrides)
        self._save_record(name, replace(record, batch_size=batch_size, overrides=overrides))
        with name_system_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if previous and find_latest_step(folder) is None:
            previous_folder = self.settings.output / previous[0] / "checkpoints"
            link_checkpoint(previous_folder, folder, record.first_step)
        step = find_latest_step(folder)
        if step is not None:
            check_checkpoint(get_step_folder(folder, step), plan.config)

    def _run_attempt(
        self, name: str, stage: StageConfig, step: int, progress: Progress, bar: TaskID
    ) -> str | None:
        """Run one training process from ``step`` on.

        Returns:
            Why the stage ends; None if its last step has to tell.

        Raises:
            TrainingError: the training ended with an error.
        """
        record = self.state.stages[name]
        attempt = StageAttempt(len(record.attempts) + 1, step)
        self._save_record(name, replace(record, attempts=(*record.attempts, attempt)))
        folder = self.settings.output / name
        attempt_folder = get_attempt_folder(folder, attempt.number)
        overrides = [*self.plans[name].overrides, *build_stream_overrides(record.first_prompt)]
        self._print_line(
            f"stage {name}: from step {step} to at most {stage.last_step}, from prompt "
            f"{record.count_prompts(step)} of the stream; log: {attempt_folder / 'train.log'}"
        )
        training = TrainingProcess(overrides, attempt_folder, folder / "tensorboard", self.lock)
        checked_step, size, end_reason = step, 0, None
        metrics: MetricsByStep = {}
        try:
            while training.read_exit_code() is None and end_reason is None:
                time.sleep(POLL_INTERVAL_S)
                if (new_size := training.measure_metrics()) != size:
                    size, metrics = new_size, self._update_progress(progress, bar, name)
                reached_step = self._find_reached_step(name)
                # verl logs a step's metrics after its checkpoint, and the rules need both.
                if reached_step > checked_step and max(metrics, default=0) >= reached_step:
                    if checked_step == step:
                        self._warn_missing_metrics(stage, metrics, name)
                    checked_step = reached_step
                    # At the last step verl ends by itself.
                    if reached_step < stage.last_step:
                        end_reason = find_end_reason(
                            stage, metrics, record.first_step, reached_step
                        )
        finally:
            exit_code = training.stop_tree()
            restore_marker(folder / "checkpoints")
            record = self.state.stages[name]
            attempts = (*record.attempts[:-1], replace(attempt, exit_code=exit_code))
            self._save_record(name, replace(record, attempts=attempts))
            self._merge_metrics(name)
        if end_reason is not None or self._find_reached_step(name) >= stage.last_step:
            return end_reason
        if exit_code == EXIT_BAD_CONFIG and (refusal := training.find_refusal()):
            raise StageError(f"stage {name}: {refusal}")
        raise TrainingError(
            f"{training.read_log_end(_LOG_LINES)}\nstage {name}: the training ended with exit code "
            f"{exit_code} after the checkpoint of step {self._find_reached_step(name)}; rerun the "
            f"same command to resume from it. The whole log: {training.log}"
        )

    # State on disk

    def _get_previous_stage(self, name: str) -> tuple[str, StageRecord] | None:
        names = list(self.plans)
        position = names.index(name)
        if not position:
            return None
        previous = names[position - 1]
        return previous, self.state.stages[previous]

    def _find_reached_step(self, name: str) -> int:
        """Return the global step of the stage's last complete checkpoint."""
        step = find_latest_step(self.settings.output / name / "checkpoints")
        return self.state.stages[name].first_step if step is None else step

    def _save_record(self, name: str, record: StageRecord) -> None:
        self.state.stages[name] = record
        self.state.write_file(self.state_file)

    def _merge_metrics(self, name: str) -> MetricsByStep:
        folder = self.settings.output / name
        metrics = merge_attempts(folder, self.state.stages[name].attempts)
        write_merged_metrics(folder, metrics)
        return metrics

    # Output

    def _update_progress(self, progress: Progress, bar: TaskID, name: str) -> MetricsByStep:
        """Show the last trained step; return the stage's metrics."""
        record = self.state.stages[name]
        metrics = merge_attempts(self.settings.output / name, record.attempts)
        trained_steps = [step for step, data in metrics.items() if REWARD_METRIC in data]
        if trained_steps:
            step = trained_steps[-1]
            text = (
                f"{name}: step {step}, "
                f"reward {format_decimal(metrics[step][REWARD_METRIC], 2)}, "
                f"truncated {format_percent(metrics[step][TRUNCATED_SHARE_METRIC], 0)}"
            )
            progress.update(bar, completed=step - record.first_step, description=text)
        return metrics

    def _warn_missing_metrics(self, stage: StageConfig, metrics: MetricsByStep, name: str) -> None:
        """Warn of rules that can never end the stage because their metric does not exist."""
        known_names = {key for data in metrics.values() for key in data}
        for metric in list_rule_metrics(stage):
            if metric not in known_names:
                self._print_line(
                    f"stage {name}: until: no step has a metric {metric} so far; "
                    f"{suggest_name(metric, sorted(known_names))}"
                )

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
