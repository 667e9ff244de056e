"""Reads the response lengths of ``benchmarks.emulated_cluster --lengths``.

Invariant: lengths are in the order of the data: batch, prompt, sample. Whatever has none is left
out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verl_pipeline.errors import UserError
from verl_pipeline.input_files import InputError, check_file, check_text_file, describe_damage
from verl_pipeline.planner.distributions import LARGEST_VALUE, MAX_VALUES
from verl_pipeline.telemetry.run_folder import load_run

COLUMN = "response_tokens"
FORMS = f"a recorded run's folder, a JSON list of numbers, or a parquet file with {COLUMN}"


class TraceError(UserError):
    """No lengths can be taken from what was named; one line."""


def read_lengths(path: Path, batch: int) -> np.ndarray:
    """Return response lengths in tokens, float64 [trajectories].

    Args:
        path: :data:`FORMS`.
        batch: trajectories of a batch.

    Raises:
        UserError: it is none of them, or has too few lengths, or one that is none.
    """
    try:
        if path.is_dir():
            lengths = _read_run(path)
        elif path.suffix == ".parquet":
            lengths = _read_parquet(path)
        else:
            lengths = _read_json(path)
    except UserError as error:
        raise TraceError(f"--lengths {error}") from error
    if not batch <= len(lengths) <= MAX_VALUES:
        raise TraceError(
            f"--lengths {path}: {len(lengths)} lengths; give at least the {batch} of a batch, and "
            f"at most {MAX_VALUES}"
        )
    wrong = lengths[~((lengths >= 1) & (lengths <= LARGEST_VALUE))]
    if len(wrong):
        raise TraceError(
            f"--lengths {path}: {wrong[0]:g} is no length; give numbers of tokens from 1 to "
            f"{LARGEST_VALUE:g}"
        )
    return lengths


def _read_run(folder: Path) -> np.ndarray:
    """Of what a run generated for its batches, validations left out."""
    table = load_run(folder).trajectories
    wanted = pc.and_(pc.invert(table["is_validation"]), pc.is_valid(table[COLUMN]))
    step = pc.coalesce(table["step"], table["batch"], pa.scalar(0))
    table = table.append_column("order", step).filter(wanted)
    names = ("order", "row", "prompt", "session")
    table = table.sort_by([(name, "ascending") for name in names])
    if not len(table):
        raise TraceError(f"{folder}: no trajectory has a length; give a run whose telemetry was on")
    return table[COLUMN].cast("float64").to_numpy()


def _read_parquet(path: Path) -> np.ndarray:
    check_file(path)
    try:
        column = pq.read_table(path, columns=[COLUMN])[COLUMN]
        return column.drop_null().cast("float64").to_numpy()
    except (KeyError, pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {describe_damage(error)}; give {FORMS}") from error


def _read_json(path: Path) -> np.ndarray:
    check_text_file(path)
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}; give {FORMS}") from error
    if not isinstance(content, list) or not all(type(value) in (int, float) for value in content):
        raise InputError(f"{path}: no list of numbers; give {FORMS}")
    try:
        return np.array(content, float)
    except OverflowError as error:
        raise InputError(f"{path}: a number of too many digits; give {FORMS}") from error
