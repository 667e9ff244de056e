"""Stage ``difficulty``: problems that a model solves sometimes, by the share of its samples that
pass.

Rates lie in ``WORK/rates.jsonl``, a line a problem, by the hash of model, sampling, prompt and
tests; the samples themselves in ``WORK/samples-<key>``, an evaluation
(:mod:`verl_pipeline.evaluation`) that goes on where it was stopped.

Invariants:
* A problem is measured once for the same model and sampling, whatever other problems there are.
* Each sample has its own seed; which others run beside it changes nothing but rounding, so a rate
  measured anew may differ in a sample. A rate that is stored does not change.
* A sample that could not be drawn or graded is no failure of the model: its problem is measured
  again by the next call.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from recipes.deepcoder.data.dataset_writer import row_of
from recipes.deepcoder.data.parquet_schema import write_parquet
from recipes.deepcoder.data.preparation_config import DifficultyConfig, PrepareConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Record, Records, Removed
from recipes.deepcoder.data.stage_cache import key_of
from verl_pipeline.evaluation.config import EvalConfig, SamplingConfig
from verl_pipeline.evaluation.data import BadData
from verl_pipeline.evaluation.run import evaluate
from verl_pipeline.evaluation.store import Lines, read_lines


def measure(
    records: Records, config: PrepareConfig, model: str, weights: str, work: Path, console: Console
) -> dict[str, float]:
    """Rates by id, those that are known and those measured now; a problem whose samples failed has
    none.
    """
    settings = sampling_of(config, weights)
    store = work / "rates.jsonl"
    known = {row["key"]: row["rate"] for row in read_lines(store)}
    keys = {record.id: _key(record, settings) for record in records}
    if missing := [record for record in records if keys[record.id] not in known]:
        folder = work / f"samples-{key_of([keys[record.id] for record in missing])}"
        write_parquet(
            [row_of(record, 0) for record in missing],
            folder / "candidates.parquet",
            key_of(settings),
        )
        rewards = _rewards(config, model, folder, console)
        with closing(Lines(store)) as lines:
            for record in missing:
                if len(found := rewards.get(record.id, [])) == config.difficulty.k:
                    known[keys[record.id]] = sum(found) / len(found)
                    lines.add(
                        {"key": keys[record.id], "id": record.id, "rate": known[keys[record.id]]}
                    )
    return {name: known[key] for name, key in keys.items() if key in known}


def sampling_of(config: PrepareConfig, weights: str) -> dict[str, Any]:
    """What a rate depends on beside the problem."""
    chosen = config.difficulty
    sampling = {name: getattr(chosen, name) for name in ("k", "max_tokens", "temperature", "top_p")}
    # What only says how fast or where it runs changes no rate.
    engine = {
        name: asdict(chosen.engine)[name]
        for name in ("dtype", "chat_template_kwargs", "rope_parameters")
    }
    template = chosen.engine.chat_template and Path(chosen.engine.chat_template).read_text()
    return {
        "weights": weights,
        **sampling,
        **engine,
        "chat_template": template,
        "seed": config.seed,
    }


def read_rates(path: str) -> dict[str, float]:
    """Rates measured elsewhere.

    Raises:
        BadData: no such file, or a line without ``id`` and a ``rate`` from 0 to 1.
    """
    if not Path(path).is_file():
        raise BadData(f"difficulty.rates={path}: no such file")
    rates = {}
    for number, row in enumerate(read_lines(Path(path)), 1):
        rate = row.get("rate")
        if "id" not in row or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise BadData(f"{path}:{number}: an id and a rate from 0 to 1 are needed, not {row}")
        rates[str(row["id"])] = float(rate)
    return rates


def difficulty(
    records: Records, rates: Mapping[str, float], config: DifficultyConfig
) -> Iterator[Decision]:
    """``difficulty.low`` < rate < ``difficulty.high``."""
    for record in records:
        rate = rates.get(record.id)
        if rate is None:
            measured = config.mode == "measure"
            detail = (
                "samples failed; the next run asks again" if measured else f"not in {config.rates}"
            )
            yield Removed(record.id, record.source, "no pass rate", detail, passing=measured)
        elif rate <= config.low:
            yield Removed(
                record.id, record.source, "too hard", f"pass rate {rate:g} (difficulty.low)"
            )
        elif rate >= config.high:
            yield Removed(
                record.id, record.source, "too easy", f"pass rate {rate:g} (difficulty.high)"
            )
        else:
            yield Kept(record.id, record.source, {"pass_rate": rate})


def _rewards(
    config: PrepareConfig, model: str, folder: Path, console: Console
) -> dict[str, list[float]]:
    chosen = config.difficulty
    evaluation = EvalConfig(
        model=model,
        tasks=["parquet"],
        output=str(folder),
        sampling=SamplingConfig(
            chosen.k, chosen.temperature, chosen.top_p, -1, chosen.max_tokens, config.seed
        ),
        engine=chosen.engine,
        grader=config.grader,
        options={"parquet": {"file": str(folder / "candidates.parquet")}},
    )
    evaluate(evaluation, console)
    # Of a sample that was graded again the last verdict counts.
    verdicts = {
        (row["id"], row["sample"]): row["reward"]
        for row in read_lines(folder / "parquet" / "verdicts.jsonl")
    }
    rewards: dict[str, list[float]] = {}
    for (name, _), reward in verdicts.items():
        if reward is not None:
            rewards.setdefault(name, []).append(reward)
    return rewards


def _key(record: Record, settings: Mapping[str, Any]) -> str:
    whole = f"{key_of(settings)}\0{record.id}\0{record.prompt!r}\0{record.reader}\0{record.tests}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]
