"""The whole preparation on a mixture with planted faults; what is cached, invalidated, refused."""

import json
import random
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from recipes.deepcoder.data.parquet_schema import check_parquet
from recipes.deepcoder.data.preparation import NothingLeft
from tests.unit.recipes.data.mixture import planted_mixture, story, taco
from verl_pipeline.evaluation.config import BadSetting
from verl_pipeline.evaluation.data import BadData, DataNotFound
from verl_pipeline.evaluation.tasks.parquet import TASK

PLANTED = (
    "sources={taco: {}, primeintellect: {}}",
    "length.max_tokens=6000",  # the tokenizer's tokens are characters
    "contamination.tasks=[humaneval]",
    "difficulty.mode=given",
)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def settings(folder: Path, *more: str) -> list[str]:
    return [*PLANTED, f"difficulty.rates={folder / 'rates.jsonl'}", *more]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_planted_fault_is_found_and_no_clean_row_is_lost(prepare, tmp_path, seed):
    mixture = planted_mixture(seed)
    data = mixture.write(tmp_path / "data")

    outcome = prepare(*settings(data), data=data)

    rows = [
        json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()
    ]
    removed = {row["id"]: (row["stage"], row["reason"], row["twin"]) for row in rows}
    assert removed == mixture.planted
    table = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert (
        {row["extra_info"]["name"] for row in table} == mixture.clean == set(outcome.records.kept)
    )
    assert all(
        row["extra_info"]["verified"] and not row["extra_info"]["multi_answer"] for row in table
    )
    assert all(0 < row["similarity"] <= 1 for row in rows if row["twin"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for source, lines in mixture.rows.items():
        counted = report["sources"][source]
        assert counted["rows"] == len(lines)
        assert counted["left"] == sum(name.startswith(f"{source}/") for name in mixture.clean)
        assert (
            sum(stage["went"] for stage in counted["stages"].values())
            == counted["rows"] - counted["left"]
        )


def test_the_files_are_what_training_and_evaluation_read(prepare, tmp_path):
    data = planted_mixture(0, clean=8).write(tmp_path / "data")
    prepare(*settings(data, "split.heldout=3"), data=data)
    names = set()
    for split in ("train", "heldout"):
        path = tmp_path / "out" / f"{split}.parquet"
        assert check_parquet(path) is None
        loaded = TASK.load(None, file=str(path))
        assert not loaded.bad_rows and all(
            item.problem and item.problem.tests for item in loaded.items
        )
        names |= {item.id for item in loaded.items}
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        assert {row["extra_info"]["split"] for row in rows} == {split}
    assert len(names) == len(planted_mixture(0, clean=8).clean)


def test_a_second_run_does_no_work_and_changes_no_byte(prepare, tmp_path):
    data = planted_mixture(0, clean=8).write(tmp_path / "data")
    first = prepare(*settings(data), data=data)
    before, verdicts = (
        files(tmp_path / "out"),
        (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes(),
    )
    assert not any(done.cached for done in [*first.sources.values(), *first.stages]) and verdicts
    written = (tmp_path / "out" / "train.parquet").stat().st_mtime_ns

    second = prepare(*settings(data), data=data)

    assert all(done.cached for done in [*second.sources.values(), *second.stages])
    assert (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes() == verdicts
    assert files(tmp_path / "out") == before
    assert (tmp_path / "out" / "train.parquet").stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def prepared(prepare_in, tmp_path_factory) -> Path:
    """A folder with ``data`` and what a run has made of it."""
    folder = tmp_path_factory.mktemp("prepared")
    data = planted_mixture(0, clean=4).write(folder / "data")
    prepare_in(folder, *settings(data), data=data)
    return folder


@pytest.mark.parametrize(
    "setting, first",
    [
        ("tests.min=6", "tests"),
        ("length.max_tokens=5999", "length"),
        ("prompt.style=released", "length"),
        ("contamination.threshold=0.75", "decontaminate"),
        ("verify.solutions=2", "verify"),
        ("near.threshold=0.85", "deduplicate"),
        ("difficulty.low=0.1", "difficulty"),
        ("split.heldout=2", "split"),
    ],
)
def test_a_changed_setting_invalidates_nothing_before_it(
    prepare, prepared, tmp_path, setting, first
):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    verdicts = (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes()
    again = prepare(*settings(prepared / "data", setting), data=prepared / "data")
    order = [done.stage for done in again.stages]
    cached = [done.stage for done in again.stages if done.cached]
    assert all(done.cached for done in again.sources.values())
    assert first not in cached and set(order[: order.index(first)]) <= set(cached)
    assert (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes() == verdicts


def test_another_source_verifies_nothing_anew(prepare, tmp_path):
    data = planted_mixture(0, clean=8).write(tmp_path / "data")
    alone = ("sources={taco: {}}", *settings(data)[1:])
    prepare(*alone, data=data)
    before = (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes()
    both = prepare(*settings(data), data=data)
    after = (tmp_path / "out" / "work" / "verdicts.jsonl").read_bytes()
    assert both.sources["taco"].cached and not both.sources["primeintellect"].cached
    assert after.startswith(before)
    added = [json.loads(line)["id"] for line in after[len(before) :].splitlines()]
    assert added and all(name.startswith("primeintellect/") for name in added)


def test_a_cut_off_verdict_is_graded_again_and_nothing_else(prepare, tmp_path):
    data = planted_mixture(0, clean=8).write(tmp_path / "data")
    prepare(*settings(data), data=data)
    before = files(tmp_path / "out")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    for done in (tmp_path / "out/work").glob("verify-*/done.json"):
        done.unlink()
    prepare(*settings(data), data=data)
    assert files(tmp_path / "out") == before
    again = store.read_bytes().splitlines(keepends=True)
    assert (
        again[:-1] == lines[:-1]
        and json.loads(again[-1])["digest"] == json.loads(lines[-1])["digest"]
    )


def test_solutions_that_disagree_may_be_marked(prepare, tmp_path):
    mixture = planted_mixture(0, clean=4)
    data = mixture.write(tmp_path / "data")
    prepare(*settings(data, "verify.on_disagreement=mark"), data=data)
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert {row["extra_info"]["name"] for row in rows if row["extra_info"]["multi_answer"]} == {
        "taco/multi"
    }
    assert {row["extra_info"]["name"] for row in rows} == mixture.clean | {"taco/multi"}


def test_rows_without_solution_may_be_kept_for_a_source(prepare, tmp_path):
    mixture = planted_mixture(0, clean=4)
    data = mixture.write(tmp_path / "data")
    prepare(*settings(data, "sources.taco.without_solution=keep"), data=data)
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert {row["extra_info"]["name"] for row in rows if not row["extra_info"]["verified"]} == {
        "taco/unsolved"
    }


def write(folder: Path, *rows: dict) -> Path:
    folder.mkdir()
    (folder / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_file_of_another_schema_is_refused_with_the_missing_fields(prepare, tmp_path):
    data = write(tmp_path / "data", {"text": "?", "answer": 1}, {"text": "!", "answer": 2})
    with pytest.raises(
        BadData, match=r"taco.jsonl: no row has the shape of taco: no field input_output, question"
    ):
        prepare("sources={taco: {}}", data=data)


def test_data_that_is_not_there_names_what_would_do(prepare, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(
        DataNotFound, match=r"TACO-verified with a suffix.*Put taco.jsonl .*likaixin/TACO-verified"
    ):
        prepare("sources={taco: {}}", data=tmp_path / "data")


def test_an_evaluation_that_is_not_there_is_refused_or_warned_of(prepare, tmp_path):
    data = planted_mixture(0, clean=4).write(tmp_path / "data")
    missing = settings(data, "contamination.tasks=[humaneval,livecodebench]")
    with pytest.raises(
        DataNotFound, match="contamination.tasks: livecodebench: .*contamination.missing=warn"
    ):
        prepare(*missing, data=data)
    outcome = prepare(*missing, "contamination.missing=warn", data=data)
    assert [
        warning
        for warning in outcome.warnings
        if "NOT DECONTAMINATED against livecodebench" in warning
    ]


@pytest.mark.parametrize(
    "setting, stage", [("tests.min=50", "tests"), ("length.max_tokens=1", "length")]
)
def test_a_stage_that_leaves_nothing_is_named_with_its_setting(prepare, tmp_path, setting, stage):
    question, tests, program = story(random.Random(0))
    data = write(tmp_path / "data", taco("one", question, tests, [program]))
    with pytest.raises(
        NothingLeft, match=rf"stage {stage} leaves no problem; look at {setting.split('=')[0]}"
    ):
        prepare("sources={taco: {}}", setting, data=data)


def test_a_held_out_part_of_everything_is_refused(prepare, tmp_path):
    question, tests, program = story(random.Random(0))
    data = write(tmp_path / "data", taco("one", question, tests, [program]))
    with pytest.raises(BadSetting, match="split.heldout=1: 1 problems are left"):
        prepare("sources={taco: {}}", "length.max_tokens=6000", "split.heldout=1", data=data)
