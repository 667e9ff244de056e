"""Trainings with a selector, on problems most of which teach the model nothing.

``quickstart`` trains the quickstart's model on its training problems without most of the easy ones:
all hard and medium ones and every third easy one. The untrained model solves hard ones never and
medium ones rarely, so that more than half of uniform's groups have no signal. Held-out problems are
the quickstart's. ``tiny`` is :mod:`benchmarks.selection_tiny`.

Invariants:
* All selectors train the same model from the same weights, with the same number of groups and of
  samples. A seed changes the order of the data, the sampling and the selector's own draws.
* A selector sees difficulty tags and what was earned; nothing of the held-out problems.
* A run is scored several times on its way, so that the rollouts to a score can be compared.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import selection_tiny
from benchmarks.common import read_versions
from benchmarks.heldout_runs import average_by_problem
from verl_pipeline.quickstart.__main__ import DIFFICULTIES, PROMPTS, SAMPLES, make_overrides
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.quickstart.problems import QuickstartProblem, load_problems, write_parquet
from verl_pipeline.testing import runs
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY

RUN_TIMEOUT_S = 4 * 3600.0
EASY_KEPT = 3
UNIFORM = "uniform"
# In place of the quickstart's own.
REPLACED = ("data.seed=", "trainer.val_before_train=", "trainer.test_freq=", "trainer.logger=")
KEPT = ("curriculum/", "critic/score/mean", "response_length/mean", "timing_s/step")


@dataclass(frozen=True)
class Case:
    """A model and its problems.

    Attributes:
        write_data: writes ``train.parquet`` and ``heldout.parquet`` into a folder.
        make_overrides: of a training below a folder that has its data in ``data``, with so many
            updates.
        trajectories: of an update.
        selectors: by name, as in the configuration.
    """

    write_data: Callable[[Path], object]
    make_overrides: Callable[[Path, int], list[str]]
    trajectories: int
    selectors: Mapping[str, str]


CASES = {
    "quickstart": Case(
        lambda folder: write_parquet(folder, choose_problems()),
        lambda folder, updates: make_overrides(prepare_model(), folder / "data", folder, updates),
        PROMPTS * SAMPLES,
        # All problems have one source.
        {
            UNIFORM: "uniform",
            "learnability": "learnability",
            "similar": "{name: similar, by: [difficulty]}",
        },
    ),
    "tiny": Case(
        selection_tiny.write_data,
        selection_tiny.make_overrides,
        selection_tiny.PROMPTS * selection_tiny.SAMPLES,
        {UNIFORM: "uniform", "learnability": "learnability", "similar": "similar"},
    ),
}


@dataclass(frozen=True)
class SelectionRun:
    """One training.

    Attributes:
        selector: of the case's.
        scores: by number of updates, the mean score by held-out problem.
        steps: by update, the metrics that begin with one of :data:`KEPT`.
        seconds: from the command to its end.
        commit: of the code that ran.
    """

    selector: str
    seed: int
    scores: dict[str, dict[str, float]]
    steps: dict[str, dict[str, float]]
    seconds: float
    commit: str


def choose_problems() -> list[QuickstartProblem]:
    """The harder corpus, and the quickstart's held-out problems."""
    every = load_problems()
    easy = [one for one in every if one.split == "train" and one.difficulty == "easy"]
    rest = [one for one in every if one.split == "train" and one.difficulty != "easy"]
    heldout = [one for one in every if one.split == "heldout" and one.difficulty in DIFFICULTIES]
    return [*easy[::EASY_KEPT], *rest, *heldout]


def choose_overrides(
    case: Case, folder: Path, selector: str, seed: int, updates: int, every: int
) -> list[str]:
    """Overrides of one training below ``folder``, which has its data in ``data``."""
    settings = [
        word for word in case.make_overrides(folder, updates) if not word.startswith(REPLACED)
    ]
    return [
        *settings,
        f"{PIPELINE_KEY}.curriculum.selector={case.selectors[selector]}",
        f"{PIPELINE_KEY}.seeded_sampling=true",
        f"data.seed={seed}",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"trainer.test_freq={every}",
        "trainer.val_before_train=True",
    ]


def train(case: Case, selector: str, seed: int, updates: int, every: int) -> SelectionRun:
    """Run one training.

    Raises:
        RuntimeError: it failed, or an update is missing; the message has the end of its log.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="selection-") as name:
        folder = Path(name)
        case.write_data(folder / "data")
        overrides = choose_overrides(case, folder, selector, seed, updates, every)
        run = runs.run_training(folder / "training", overrides, timeout_s=RUN_TIMEOUT_S)
        if run.returncode or not {*range(1, updates + 1)} <= run.metrics.keys():
            raise RuntimeError(f"{selector} exited with {run.returncode}: {run.output[-2000:]}")
        scores = {
            str(step): average_by_problem(folder / "heldout" / f"{step}.jsonl")
            for step in sorted({*range(0, updates + 1, every), updates})
        }
    steps = {
        str(step): {key: value for key, value in run.metrics[step].items() if key.startswith(KEPT)}
        for step in range(1, updates + 1)
    }
    seconds = time.monotonic() - started
    commit = read_versions().get("commit", "unknown")
    return SelectionRun(selector, seed, scores, steps, seconds, commit)
