"""Goes through the stages: each trains in a child process, hands its last checkpoint on, and can be
stopped anywhere.

    <output>/stages.json                      what was done (recipes.deepcoder.stages.run_state)
    <output>/<stage>/checkpoints              verl's
    <output>/<stage>/attempts/<n>             log and metrics of each process
    <output>/<stage>/metrics.jsonl            the same, merged; tensorboard/ beside it

Invariants:
* Everything that decides what comes next is on disk before it is acted on, so a restart after a
  kill at any moment goes on as if there had been none.
* A stage ends at a complete checkpoint. What was trained or sampled beyond it is trained again,
  from the same prompts.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

from rich.console import Console
from rich.progress import Progress, TaskID

from recipes.deepcoder.stages import stage_checkpoints as checkpoints
from recipes.deepcoder.stages.end_rules import ended, needed
from recipes.deepcoder.stages.run_state import (
    Attempt,
    Record,
    State,
    by_key,
    check_identity,
    check_settings,
    identity_of,
    load,
    sole_runner,
)
from recipes.deepcoder.stages.stage_checks import BadStage, Planned, files_of
from recipes.deepcoder.stages.stage_config import REWARD, TRUNCATED_SHARE, Stage, nearest
from recipes.deepcoder.stages.stage_metrics import Metrics, attempt_folder, merged, write_merged
from recipes.deepcoder.stages.stage_overrides import Settings, place
from recipes.deepcoder.stages.training_process import Training, TrainingFailed
from verl_pipeline.main import EXIT_BAD_CONFIG
from verl_pipeline.progress import make_progress_bars

LOOK_S = 0.5


def run(
    settings: Settings, planned: Sequence[Planned], only: str | None, console: Console
) -> State:
    """Train every stage, or ``only`` one, from where an earlier call stopped.

    Raises:
        Refused: something contradicts what was done before.
        TrainingFailed: a training ended with an error.
    """
    with sole_runner(settings.output, console) as lock:
        return _Runner(settings, planned, console, lock).run(only)


class _Runner:
    """A call of :func:`run`."""

    def __init__(
        self, settings: Settings, planned: Sequence[Planned], console: Console, lock: IO[str]
    ):
        self.settings, self.console, self.lock = settings, console, lock
        self.planned = {stage.name: stage for stage in planned}
        self.path = settings.output / "stages.json"
        config = planned[0].config
        identity = identity_of(config, files_of(config, "train"))
        self.state = load(self.path) or State(identity)
        check_identity(self.state, identity)

    def run(self, only: str | None) -> State:
        for name, stage in self.planned.items():
            record = self.state.stages.get(name)
            if record is not None and record.status == "done":
                if only is None:
                    check_settings(name, record, by_key(stage.overrides))
                self._say(f"stage {name}: done at step {record.ended_at} ({record.why})")
            elif only in (None, name):
                self._train_stage(name)
            else:
                raise BadStage(
                    f"--stage {only}: stage {name} before it is not done; run it first, or take it "
                    "out of the file"
                )
            if name == only:
                break
        return self.state

    # ---- one stage
    # ------------------------------------------------------------------------------------------------

    def _train_stage(self, name: str) -> None:
        names = list(self.planned)
        if later := next(
            (other for other in names[names.index(name) + 1 :] if other in self.state.stages), None
        ):
            raise BadStage(
                f"stage {name}: stage {later} behind it has begun without it; choose another "
                "--output"
            )
        self._begin(name)
        stage, record = self.settings.run.stages[name], self.state.stages[name]
        folder = self.settings.output / name
        why: str | None = None
        with make_progress_bars(self.console) as progress:
            bar = progress.add_task(
                f"{name}: starting engines", total=stage.last_step - record.first_step
            )
            while why is None:
                step = self._reached(name)
                self._show(progress, bar, name)
                why = ended(stage, self._merge(name), record.first_step, step)
                if why is None:
                    why = self._attempt(name, stage, step, progress, bar)
            self._show(progress, bar, name)
        step = self._reached(name)
        self._keep(name, replace(self.state.stages[name], ended_at=step, why=why))
        self._say(f"stage {name}: done at step {step} ({why}); weights: {folder / 'checkpoints'}")

    def _begin(self, name: str) -> None:
        """Record where the stage begins, and give it the checkpoint it begins with."""
        planned, before = self.planned[name], self._before(name)
        folder = self.settings.output / name / "checkpoints"
        checkpoints.repair(folder)
        batch = planned.config.data.train_batch_size
        record = self.state.stages.get(name)
        if record is None:
            first = before[1].ended_at or 0 if before else 0
            start = before[1].consumed(first) if before else 0
            record = Record(first, start, batch, {})
        elif checkpoints.latest(folder) not in (None, record.first_step) and record.batch != batch:
            raise BadStage(
                f"stage {name}: data.train_batch_size={batch}: it is under way with {record.batch},"
                " by which its prompts are counted; put it back, or choose another --output"
            )
        self._keep(name, replace(record, batch=batch, settings=by_key(planned.overrides)))
        folder.mkdir(parents=True, exist_ok=True)
        if before and checkpoints.latest(folder) is None:
            checkpoints.hand_over(
                self.settings.output / before[0] / "checkpoints", folder, record.first_step
            )
        step = checkpoints.latest(folder)
        if step is not None:
            checkpoints.check_checkpoint(checkpoints.folder_of(folder, step), planned.config)

    def _attempt(
        self, name: str, stage: Stage, step: int, progress: Progress, bar: TaskID
    ) -> str | None:
        """One training process; why the stage ends with it, None if its last step has to tell.

        Raises:
            TrainingFailed: it ended with an error.
        """
        record = self.state.stages[name]
        attempt = Attempt(len(record.attempts) + 1, step)
        self._keep(name, replace(record, attempts=(*record.attempts, attempt)))
        folder = self.settings.output / name
        overrides = [*self.planned[name].overrides, *place(record.start)]
        self._say(
            f"stage {name}: from step {step} to at most {stage.last_step}, from prompt "
            f"{record.consumed(step)} of the stream on; log: "
            f"{attempt_folder(folder, attempt.number) / 'train.log'}"
        )
        training = Training(
            overrides, attempt_folder(folder, attempt.number), folder / "tensorboard", self.lock
        )
        looked_at, size, why = step, 0, None
        metrics: Metrics = {}
        try:
            while training.poll() is None and why is None:
                time.sleep(LOOK_S)
                if (now := training.logged()) != size:
                    size, metrics = now, self._show(progress, bar, name)
                reached = self._reached(name)
                # verl logs a step's metrics after its checkpoint.
                if reached > looked_at and max(metrics, default=0) >= reached:
                    if looked_at == step:
                        self._warn_of_missing(stage, metrics, name)
                    looked_at = reached
                    why = (
                        ended(stage, metrics, record.first_step, reached)
                        if reached < stage.last_step
                        else None
                    )
        finally:
            code = training.stop()
            checkpoints.repair(folder / "checkpoints")
            record = self.state.stages[name]
            self._keep(
                name,
                replace(record, attempts=(*record.attempts[:-1], replace(attempt, exit_code=code))),
            )
            self._merge(name)
        if why is not None or self._reached(name) >= stage.last_step:
            return why
        if code == EXIT_BAD_CONFIG and (refusal := training.refusal()):
            raise BadStage(f"stage {name}: {refusal}")
        raise TrainingFailed(
            f"{training.end_of_log(30)}\nstage {name}: the training ended with {code}, its last "
            f"checkpoint is of step {self._reached(name)}, from which the same command goes on; "
            f"the whole log: {training.log}"
        )

    # ---- what is on disk
    # ------------------------------------------------------------------------------------------

    def _before(self, name: str) -> tuple[str, Record] | None:
        names = list(self.planned)
        position = names.index(name)
        return (names[position - 1], self.state.stages[names[position - 1]]) if position else None

    def _reached(self, name: str) -> int:
        """The global step of the stage's last complete checkpoint."""
        step = checkpoints.latest(self.settings.output / name / "checkpoints")
        return self.state.stages[name].first_step if step is None else step

    def _keep(self, name: str, record: Record) -> None:
        self.state.stages[name] = record
        self.state.save(self.path)

    def _merge(self, name: str) -> Metrics:
        folder = self.settings.output / name
        metrics = merged(folder, self.state.stages[name].attempts)
        write_merged(folder, metrics)
        return metrics

    # ---- what is shown
    # --------------------------------------------------------------------------------------------

    def _show(self, progress: Progress, bar: TaskID, name: str) -> Metrics:
        record = self.state.stages[name]
        metrics = merged(self.settings.output / name, record.attempts)
        trained = [step for step, data in metrics.items() if REWARD in data]
        if trained:
            last = metrics[trained[-1]]
            text = (
                f"{name}: step {trained[-1]}, reward {last[REWARD]:.2f}, truncated "
                f"{last[TRUNCATED_SHARE]:.0%}"
            )
            progress.update(bar, completed=trained[-1] - record.first_step, description=text)
        return metrics

    def _warn_of_missing(self, stage: Stage, metrics: Metrics, name: str) -> None:
        """A rule whose metric is never there never ends anything."""
        known = {key for data in metrics.values() for key in data}
        for metric in needed(stage):
            if metric not in known:
                self._say(
                    f"stage {name}: until: no step has a metric {metric} so far; "
                    f"{nearest(metric, sorted(known))}"
                )

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
