"""Stage ``difficulty``: keeps problems that a model solves sometimes, by their pass rates.

Pass rates are stored in ``WORK/rates.jsonl``, one line per problem, under the hash of model,
sampling parameters, prompt and tests. The samples are in ``WORK/samples-<key>``, an evaluation
(:mod:`verl_pipeline.evaluation`) that resumes if it was interrupted.

Invariants:
* A problem is measured once for the same model and sampling parameters, whatever other problems
  there are.
* Each sample has its own seed, so the other samples of a batch change it only by rounding: a second
  measurement may differ in a sample. A stored pass rate does not change.
* A sample that could not be drawn or graded does not count as a failure of the model: the next call
  measures its problem again.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from rich.console import Console
from typing_extensions import TypedDict  # pydantic takes this one on Python 3.11

from verl_pipeline.evaluation.data import BadData
from verl_pipeline.evaluation.eval_settings import (
    EvalConfig,
    ResponseGraderConfig,
    SamplingConfig,
)
from verl_pipeline.evaluation.evaluation_run import run_evaluation
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.store import EVALUATION
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.outputs.folders import claim_output
from verl_pipeline.recipes.deepcoder.data.dataset_writer import build_row
from verl_pipeline.recipes.deepcoder.data.parquet_schema import write_parquet
from verl_pipeline.recipes.deepcoder.data.preparation_config import DifficultyConfig, PrepareConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    ProblemRecord,
    RecordSet,
    RemovedRow,
)
from verl_pipeline.recipes.deepcoder.data.stage_cache import compute_key


class _Rate(TypedDict):
    id: str
    rate: Annotated[float, Field(ge=0, le=1)]


_RATE = TypeAdapter(_Rate)
_RATE_ADVICE = "each line needs an id and a rate from 0 to 1; correct or remove it"


def measure_pass_rates(
    records: RecordSet,
    config: PrepareConfig,
    model: str,
    weights: str,
    work: Path,
    console: Console,
) -> dict[str, float]:
    """Return the stored pass rates by id, and measure those that are missing.

    A problem with a failed sample has no pass rate.

    Args:
        records: the problems.
        config: the settings of the preparation.
        model: folder of the model to sample.
        weights: hash of its weights.
        work: folder of the stage cache.
        console: where progress is shown.
    """
    sampling = describe_sampling(config, weights)
    store = work / "rates.jsonl"
    rates_by_key = {row["key"]: row["rate"] for row in read_records(store)}
    keys = {record.id: _compute_record_key(record, sampling) for record in records}
    if missing := [record for record in records if keys[record.id] not in rates_by_key]:
        folder = work / f"samples-{compute_key([keys[record.id] for record in missing])}"
        with claim_output(folder, EVALUATION):  # signed before the first file is in it
            write_parquet(
                [build_row(record, 0) for record in missing],
                folder / "candidates.parquet",
                compute_key(sampling),
            )
        rewards_by_id = _sample_rewards(config, model, folder, console)
        with closing(JsonLinesFile(store)) as lines:
            for record in missing:
                rewards, key = rewards_by_id.get(record.id, []), keys[record.id]
                if len(rewards) == config.difficulty.k:
                    rates_by_key[key] = sum(rewards) / len(rewards)
                    lines.append_row({"key": key, "id": record.id, "rate": rates_by_key[key]})
    return {record_id: rates_by_key[key] for record_id, key in keys.items() if key in rates_by_key}


def describe_sampling(config: PrepareConfig, weights: str) -> dict[str, Any]:
    """Return what a pass rate depends on, apart from the problem."""
    difficulty = config.difficulty
    names = ("k", "max_tokens", "temperature", "top_p")
    parameters = {name: getattr(difficulty, name) for name in names}
    # The other settings of the engine decide only how fast or where it runs.
    engine = {
        name: asdict(difficulty.engine)[name]
        for name in ("dtype", "chat_template_kwargs", "rope_parameters")
    }
    template = difficulty.engine.chat_template and Path(difficulty.engine.chat_template).read_text()
    return {
        "weights": weights,
        **parameters,
        **engine,
        "chat_template": template,
        "seed": config.seed,
    }


def read_pass_rates(path: str) -> dict[str, float]:
    """Read pass rates that were measured elsewhere, by id.

    Raises:
        BadData: the file does not exist.
        InputError: it cannot be read.
        DamagedFileError: a line lacks an ``id`` or a ``rate`` from 0 to 1.
    """
    if not os.path.exists(path):
        raise BadData(f"difficulty.rates={path}: no such file")
    return {row["id"]: row["rate"] for row in read_records(Path(path), _RATE, _RATE_ADVICE)}


def filter_by_pass_rate(
    records: RecordSet, rates: Mapping[str, float], config: DifficultyConfig
) -> Iterator[Decision]:
    """Keep problems with ``difficulty.low`` < pass rate < ``difficulty.high``."""
    for record in records:
        rate = rates.get(record.id)
        if rate is None:
            is_measured = config.mode == "measure"
            yield RemovedRow(
                record.id,
                record.source,
                "no pass rate",
                "samples failed; the next run samples again"
                if is_measured
                else f"not in {config.rates}",
                is_transient=is_measured,
            )
        elif rate <= config.low:
            detail = f"pass rate {rate:g} (difficulty.low)"
            yield RemovedRow(record.id, record.source, "too hard", detail)
        elif rate >= config.high:
            detail = f"pass rate {rate:g} (difficulty.high)"
            yield RemovedRow(record.id, record.source, "too easy", detail)
        else:
            yield KeptRow(record.id, record.source, {"pass_rate": rate})


def _sample_rewards(
    config: PrepareConfig, model: str, folder: Path, console: Console
) -> dict[str, list[float]]:
    """Sample and grade the problems of ``folder/candidates.parquet``; return rewards by id."""
    difficulty = config.difficulty
    evaluation = EvalConfig(
        model=model,
        tasks=["parquet"],
        output=str(folder),
        sampling=SamplingConfig(
            difficulty.k,
            difficulty.temperature,
            difficulty.top_p,
            -1,
            difficulty.max_tokens,
            config.seed,
        ),
        engine=difficulty.engine,
        grader=ResponseGraderConfig(**asdict(config.grader)),
        options={"parquet": {"file": str(folder / "candidates.parquet")}},
    )
    run_evaluation(evaluation, console)
    # The last verdict of a sample counts: a sample whose grading failed is graded again.
    reward_by_sample = {
        (row["id"], row["sample"]): row["reward"]
        for row in read_records(folder / "parquet" / "verdicts.jsonl")
    }
    rewards: dict[str, list[float]] = {}
    for (record_id, _sample), reward in reward_by_sample.items():
        if reward is not None:
            rewards.setdefault(record_id, []).append(reward)
    return rewards


def _compute_record_key(record: ProblemRecord, sampling: Mapping[str, Any]) -> str:
    text = (
        f"{compute_key(sampling)}\0{record.id}\0{record.prompt!r}\0{record.reader}\0{record.tests}"
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
