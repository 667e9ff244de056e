"""A tiny model on made-up prompts, most of which teach it nothing: minutes instead of hours.

A prompt asks for a letter, at least so many times; the reward is 1 if the answer has it so often,
else 0. Three prompts of ten can be learnt. One asks for nothing (always solved), six ask for more
letters than an answer holds (never). Sources differ in how many of theirs are hopeless. Held-out
prompts can all be learnt, and have row numbers that no training prompt has.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from verl_pipeline.testing import tiny_run

PROMPTS, SAMPLES = 8, 8
ROWS, HELD_OUT = 240, 24
LETTERS, NEEDS = "ab", (1, 2, 4)
HOPELESS = tiny_run.RESPONSE_LENGTH + 1
# Of ten prompts of each source: how many can be learnt, and how many ask for nothing.
SOURCES = {"rich": (7, 1), "mixed": (4, 1), "poor": (1, 1), "barren": (0, 1)}
VALIDATION_SAMPLES = 8


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs) -> float:
    """verl's reward function: 1 if the answer has the letter as often as asked, else 0."""
    letter, need = ground_truth.split()
    return float(solution_str.count(letter) >= int(need))


def choose_need(row: int) -> tuple[str, int]:
    """Source of a training row, and how many letters it asks for."""
    source = list(SOURCES)[row % len(SOURCES)]
    learnable, free = SOURCES[source]
    place = row // len(SOURCES) % 10
    if place < learnable:
        return source, NEEDS[row // (10 * len(SOURCES)) % len(NEEDS)]
    return source, 0 if place < learnable + free else HOPELESS


def _make_row(index: int, source: str, need: int) -> dict:
    letter = LETTERS[index // 3 % len(LETTERS)]
    prompt = f"row {index}: write {letter} {need} times"
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "tiny",
        "reward_model": {"style": "rule", "ground_truth": f"{letter} {need}"},
        "extra_info": {"index": index},
    }


def write_data(folder: Path) -> None:
    """Write ``train.parquet`` and ``heldout.parquet``."""
    rows = {
        "train": [_make_row(row, *choose_need(row)) for row in range(ROWS)],
        "heldout": [
            _make_row(ROWS + row, "heldout", NEEDS[row % len(NEEDS)]) for row in range(HELD_OUT)
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in rows.items():
        pq.write_table(pa.Table.from_pylist(some), folder / f"{name}.parquet")


def make_overrides(folder: Path, updates: int) -> list[str]:
    """Overrides of a training below ``folder``, which has its data in ``data``."""
    rollout = "actor_rollout_ref.rollout"
    return [
        *tiny_run.make_overrides(folder, batch=PROMPTS, n=SAMPLES),
        f"data.train_files={folder / 'data' / 'train.parquet'}",
        f"data.val_files={folder / 'data' / 'heldout.parquet'}",
        f"{rollout}.nnodes=1",
        f"{rollout}.val_kwargs.n={VALIDATION_SAMPLES}",
        f"{rollout}.val_kwargs.temperature=1.0",
        f"{rollout}.val_kwargs.do_sample=True",
        # As a file: a run's processes have no folder of benchmarks on their path.
        f"reward.custom_reward_function.path={Path(__file__).resolve()}",
        f"trainer.total_training_steps={updates}",
        f"trainer.validation_data_dir={folder / 'heldout'}",
    ]
