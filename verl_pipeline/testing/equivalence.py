"""``python -m verl_pipeline.testing.equivalence DIRECTORY``: staleness 0 against verl's ``sync``.

Both train a tiny model in fp32 with real vLLM and FSDP engines on one rank and one replica, one
mini-batch a batch, each request seeded by (step, data index, session) as with ``seeded_sampling``,
over three epochs of a data set that is no multiple of the batch. Prompts, tokens and rewards must
be equal; losses and gradient norms must agree within :data:`TOLERANCE`.

The tolerance is what ``sync`` differs from itself by (``--baseline``), times a margin: the rows of
a batch arrive in another order each time, so sums in fp32 are rounded differently.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.testing import recorded_rollout, runs, seeded_rollout, tiny_run

ROWS, BATCH, EPOCHS = 14, 4, 3
STEPS = ROWS // BATCH * EPOCHS
# Relative; measured sync against sync: see docs/benchmarks/equivalence.md.
TOLERANCE = 1e-5
COMPARED = ("actor/loss", "actor/pg_loss", "actor/grad_norm")


@dataclass(frozen=True)
class RunDifference:
    """Where two runs differ.

    Attributes:
        discrete: sentences, one for each step whose prompts, tokens or rewards differ.
        relative: by metric, the largest difference over all steps, relative to the larger value
            of its step, or to the metric's median over the run where that is larger.
    """

    discrete: list[str]
    relative: dict[str, float]

    @property
    def is_equal(self) -> bool:
        """Whether the runs are the same training."""
        return not self.discrete and all(value <= TOLERANCE for value in self.relative.values())


def make_overrides(directory: Path, mode: str) -> list[str]:
    """Overrides of a run of ``mode`` ("sync" or "one_off_pipeline", the latter at staleness 0)."""
    common = [
        *tiny_run.make_overrides(directory, rows=ROWS, batch=BATCH),
        f"trainer.v1.trainer_mode={mode}",
        f"trainer.total_epochs={EPOCHS}",
    ]
    manager = "+actor_rollout_ref.rollout.agent.agent_loop_manager_class="
    if mode == "sync":  # which has no setting for seeds
        return [*common, f"{manager}{seeded_rollout.MANAGER}"]
    return [
        *common,
        f"{manager}{recorded_rollout.MANAGER}",
        "actor_rollout_ref.rollout.nnodes=1",
        "+trainer.v1.one_off_pipeline.seeded_sampling=true",
        "+trainer.v1.one_off_pipeline.staleness=0",
    ]


def train_in_mode(directory: Path, mode: str) -> runs.Run:
    """Train once, from verl's own entry point."""
    finished = runs.run_training(
        directory / mode, make_overrides(directory, mode), module=runs.STOCK
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{mode} failed:\n{finished.output[-4000:]}")
    return finished


def compare_runs(one: runs.Run, other: runs.Run) -> RunDifference:
    """Compare two runs step by step."""
    discrete = []
    left, right = _group_by_step(one), _group_by_step(other)
    for step in range(1, STEPS + 1):
        if left.get(step) != right.get(step):
            same = sum(
                a == b for a, b in zip(left.get(step, []), right.get(step, []), strict=False)
            )
            discrete.append(
                f"step {step}: {same} of {len(left.get(step, []))} trajectories are the same"
            )
    relative = {}
    for name in COMPARED:
        pairs = [
            (one.metrics[step][name], other.metrics[step][name]) for step in range(1, STEPS + 1)
        ]
        # A loss whose terms cancel is rounded as they are: its own size says nothing.
        usual = statistics.median(abs(value) for value, _other in pairs)
        relative[name] = max(abs(a - b) / max(abs(a), abs(b), usual) for a, b in pairs)
    return RunDifference(discrete, relative)


def _group_by_step(finished: runs.Run) -> dict[int, list[tuple]]:
    found: dict[int, list[tuple]] = {}
    for record in sorted(
        finished.trajectories, key=lambda entry: (entry["step"], entry["index"], entry["session"])
    ):
        key = (record["index"], record["session"])
        row = (*key, tuple(record["prompt"]), tuple(record["response"]), record["reward"])
        found.setdefault(record["step"], []).append(row)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and print how they differ; 0 if they are the same training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="where models, data and logs go")
    parser.add_argument("--baseline", action="store_true", help="compare sync with itself instead")
    options = parser.parse_args(arguments)
    root = options.directory.resolve()
    first = train_in_mode(root / "one", "sync")
    second = train_in_mode(root / "two", "sync" if options.baseline else "one_off_pipeline")
    difference = compare_runs(first, second)
    print(
        f"{STEPS} updates; prompts, tokens, rewards: "
        f"{'equal' if not difference.discrete else 'DIFFERENT'}"
    )
    for line in difference.discrete:
        print(" ", line)
    for name, value in difference.relative.items():
        print(f"{name}: largest relative difference {value:.2e} (tolerance {TOLERANCE:g})")
    return 0 if difference.is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
