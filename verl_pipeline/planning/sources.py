"""Where a plan's profile comes from: a file, a run, a model on GPUs; and what is changed of it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from verl_pipeline.errors import UserError, escape_controls
from verl_pipeline.planner.estimate import Estimate
from verl_pipeline.planner.gpus import find_gpu
from verl_pipeline.planner.model_profile import make_model_estimate
from verl_pipeline.planner.model_size import read_model_size
from verl_pipeline.planner.profile_reader import find_profile, load_profile
from verl_pipeline.planner.work_changes import WorkChanges, change_work

DEFAULT_PROFILE = Path("deepcoder_code_8xa100")


class SourceError(UserError):
    """Options that contradict each other, in one line."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the command line names.

    Attributes:
        profile: a file, or a name of the package's; ``run``: a run's folder. At most one of them.
        scaling_runs: folders of runs on other numbers of training devices; with ``run``.
        model: a ``config.json`` or its folder, with ``gpu``: replace the cluster of the others.
        gpus: instead of the profile's.
        tensor_parallel, mfu: GPUs of a replica, and the share of its FLOP/s that training reaches;
            with ``model``.
    """

    profile: Path | None = None
    run: Path | None = None
    scaling_runs: tuple[Path, ...] = ()
    model: Path | None = None
    gpu: str | None = None
    gpus: int | None = None
    tensor_parallel: int | None = None
    mfu: float | None = None
    changes: WorkChanges = field(default_factory=WorkChanges)

    def list_inputs(self) -> dict[str, Path]:
        """Files and folders that are read, by their options."""
        inputs = {"--run": self.run, "--model": self.model}
        found = {name: path for name, path in inputs.items() if path is not None}
        if self.run is None:
            found["--profile"] = find_profile(self.profile or DEFAULT_PROFILE)
        if self.model is not None and os.path.isdir(self.model):
            found["--model"] = self.model / "config.json"
        return found


def make_estimate(source: Source) -> Estimate:
    """Read what is named; the number of GPUs is applied only where a model is given.

    Raises:
        UserError: options contradict each other, or something cannot be read or simulated.
    """
    if source.run is not None and source.profile is not None:
        raise SourceError("--run and --profile: both describe the work; give one of them")
    for path in source.scaling_runs:
        if source.run is None:
            raise SourceError(
                f"--scaling-run {path}: only --run takes it; give the run to plan for"
            )
        if source.model is not None:
            raise SourceError(
                f"--scaling-run {path}: --model replaces how the run trains; leave one of them out"
            )
    of_models = {
        "--gpu": source.gpu,
        "--tensor-parallel": source.tensor_parallel,
        "--mfu": source.mfu,
    }
    for name, value in of_models.items():
        if value is not None and source.model is None:
            raise SourceError(f"{name} {value}: only --model takes it; give a model's config.json")
    gpu = find_gpu(source.gpu) if source.gpu is not None else None
    if source.model is not None and gpu is None:
        raise SourceError("--model needs --gpu, as --gpu h100")
    if source.run is not None:
        from verl_pipeline.planning.run_profile import make_run_estimate

        estimate = make_run_estimate(source.run, source.scaling_runs)
    else:
        estimate = Estimate(load_profile(source.profile or DEFAULT_PROFILE))
    if source.changes != WorkChanges():
        changed = change_work(estimate.profile, source.changes)
        estimate = Estimate(changed, estimate.notes)
    if source.model is None or gpu is None:
        return estimate
    try:
        size = read_model_size(source.model)
    except UserError as error:
        raise SourceError(f"--model {error}") from error
    return make_model_estimate(
        estimate.profile,
        _name_model(Path(os.path.abspath(source.model))),
        size,
        gpu,
        source.gpus or estimate.profile.gpus,
        source.tensor_parallel,
        source.mfu,
    )


def _name_model(path: Path) -> str:
    return escape_controls(path.parent.name if path.name == "config.json" else path.name)
