"""Whole preparations of a mixture with planted faults: what is removed, cached and refused."""

import json
import random
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.helpers.problem_mixture import make_mixture, make_story, make_taco_row
from tests.helpers.thinned import thin_out, thin_out_rows
from verl_pipeline.evaluation.data import BadData, DataNotFound
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.tasks.parquet import TASK
from verl_pipeline.recipes.deepcoder.data.parquet_schema import check_parquet
from verl_pipeline.recipes.deepcoder.data.stage_sequence import EmptyStageError

pytestmark = pytest.mark.medium

MIXTURE_SETTINGS = (
    "sources={taco: {}, primeintellect: {}}",
    "length.max_tokens=6000",  # the tokenizer's tokens are characters
    "contamination.tasks=[humaneval]",
    "difficulty.mode=given",
)


def list_settings(data: Path, *more: str) -> list[str]:
    return [*MIXTURE_SETTINGS, f"difficulty.rates={data / 'rates.jsonl'}", *more]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def read_verdicts(folder: Path) -> bytes:
    return (folder / "out" / "work" / "verdicts.jsonl").read_bytes()


def read_train_rows(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "out" / "train.parquet").to_pylist()


def list_results(result) -> list:
    return [*result.sources.values(), *result.stages]


@pytest.mark.parametrize("seed", thin_out([0, 1, 2], keep=1))
def test_every_planted_fault_is_found_and_no_clean_row_is_lost(prepare, tmp_path, seed):
    mixture = make_mixture(seed)
    data = mixture.write_files(tmp_path / "data")

    result = prepare(*list_settings(data), data=data)

    rows = [
        json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()
    ]
    removed = {row["id"]: (row["stage"], row["reason"], row["twin"]) for row in rows}
    assert removed == mixture.planted
    train_rows = read_train_rows(tmp_path)
    assert (
        {row["extra_info"]["name"] for row in train_rows}
        == mixture.clean
        == set(result.records.fields_by_id)
    )
    assert all(
        row["extra_info"]["verified"] and not row["extra_info"]["multi_answer"]
        for row in train_rows
    )
    assert all(0 < row["similarity"] <= 1 for row in rows if row["twin"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for source, lines in mixture.rows.items():
        counts = report["sources"][source]
        assert counts["rows"] == len(lines)
        assert counts["left"] == sum(name.startswith(f"{source}/") for name in mixture.clean)
        assert (
            sum(stage["went"] for stage in counts["stages"].values())
            == counts["rows"] - counts["left"]
        )


def test_training_and_evaluation_can_read_the_files(prepare, tmp_path):
    data = make_mixture(0, clean=8).write_files(tmp_path / "data")
    prepare(*list_settings(data, "split.heldout=3"), data=data)
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
    assert len(names) == len(make_mixture(0, clean=8).clean)


def test_a_second_run_does_no_work_and_changes_no_byte(prepare, tmp_path):
    data = make_mixture(0, clean=8).write_files(tmp_path / "data")
    first = prepare(*list_settings(data), data=data)
    files, verdicts = read_files(tmp_path / "out"), read_verdicts(tmp_path)
    assert not any(one.is_cached for one in list_results(first)) and verdicts
    written = (tmp_path / "out" / "train.parquet").stat().st_mtime_ns

    second = prepare(*list_settings(data), data=data)

    assert all(one.is_cached for one in list_results(second))
    assert read_verdicts(tmp_path) == verdicts
    assert read_files(tmp_path / "out") == files
    assert (tmp_path / "out" / "train.parquet").stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def prepared(prepare_in, tmp_path_factory) -> Path:
    """A folder with ``data``, and the result of its preparation in ``out``."""
    folder = tmp_path_factory.mktemp("prepared")
    data = make_mixture(0, clean=4).write_files(folder / "data")
    prepare_in(folder, *list_settings(data), data=data)
    return folder


@pytest.mark.parametrize(
    "setting, first",
    thin_out_rows(
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
        keep=3,
    ),
)
def test_a_changed_setting_invalidates_no_stage_before_its_own(
    prepare, prepared, tmp_path, setting, first
):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    verdicts = read_verdicts(tmp_path)
    result = prepare(*list_settings(prepared / "data", setting), data=prepared / "data")
    order = [one.stage for one in result.stages]
    cached = [one.stage for one in result.stages if one.is_cached]
    assert all(one.is_cached for one in result.sources.values())
    assert first not in cached and set(order[: order.index(first)]) <= set(cached)
    assert read_verdicts(tmp_path) == verdicts


def test_another_source_grades_only_its_own_solutions(prepare, tmp_path):
    data = make_mixture(0, clean=8).write_files(tmp_path / "data")
    prepare("sources={taco: {}}", *list_settings(data)[1:], data=data)
    before = read_verdicts(tmp_path)
    both = prepare(*list_settings(data), data=data)
    after = read_verdicts(tmp_path)
    assert both.sources["taco"].is_cached and not both.sources["primeintellect"].is_cached
    assert after.startswith(before)
    added = [json.loads(line)["id"] for line in after[len(before) :].splitlines()]
    assert added and all(name.startswith("primeintellect/") for name in added)


def test_only_a_cut_off_verdict_is_graded_again(prepare, tmp_path):
    data = make_mixture(0, clean=8).write_files(tmp_path / "data")
    prepare(*list_settings(data), data=data)
    before = read_files(tmp_path / "out")
    store = tmp_path / "out" / "work" / "verdicts.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    for marker in (tmp_path / "out/work").glob("verify-*/done.json"):
        marker.unlink()
    prepare(*list_settings(data), data=data)
    assert read_files(tmp_path / "out") == before
    new_lines = store.read_bytes().splitlines(keepends=True)
    assert new_lines[:-1] == lines[:-1]
    assert json.loads(new_lines[-1])["digest"] == json.loads(lines[-1])["digest"]


def test_solutions_that_disagree_may_be_marked(prepare, tmp_path):
    mixture = make_mixture(0, clean=4)
    data = mixture.write_files(tmp_path / "data")
    prepare(*list_settings(data, "verify.on_disagreement=mark"), data=data)
    rows = [row["extra_info"] for row in read_train_rows(tmp_path)]
    assert {row["name"] for row in rows if row["multi_answer"]} == {"taco/multi"}
    assert {row["name"] for row in rows} == mixture.clean | {"taco/multi"}


def test_rows_without_solution_may_be_kept_for_a_source(prepare, tmp_path):
    mixture = make_mixture(0, clean=4)
    data = mixture.write_files(tmp_path / "data")
    prepare(*list_settings(data, "sources.taco.without_solution=keep"), data=data)
    rows = [row["extra_info"] for row in read_train_rows(tmp_path)]
    assert {row["name"] for row in rows if not row["verified"]} == {"taco/unsolved"}


def write_rows(folder: Path, *rows: dict) -> Path:
    folder.mkdir()
    (folder / "taco.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_file_in_an_unknown_format_is_refused_with_the_missing_fields(prepare, tmp_path):
    data = write_rows(tmp_path / "data", {"text": "?", "answer": 1}, {"text": "!", "answer": 2})
    with pytest.raises(
        BadData,
        match=r"taco.jsonl: no row has a known format of taco: no field input_output, question",
    ):
        prepare("sources={taco: {}}", data=data)


def test_missing_data_is_refused_with_the_files_that_are_needed(prepare, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(
        DataNotFound, match=r"TACO-verified with a suffix.*Put taco.jsonl .*likaixin/TACO-verified"
    ):
        prepare("sources={taco: {}}", data=tmp_path / "data")


def test_a_missing_evaluation_is_an_error_or_a_warning(prepare, tmp_path):
    data = make_mixture(0, clean=4).write_files(tmp_path / "data")
    settings = list_settings(data, "contamination.tasks=[humaneval,livecodebench]")
    with pytest.raises(
        DataNotFound, match="contamination.tasks: livecodebench: .*contamination.missing=warn"
    ):
        prepare(*settings, data=data)
    result = prepare(*settings, "contamination.missing=warn", data=data)
    assert any("NOT DECONTAMINATED against livecodebench" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    "setting, stage", [("tests.min=50", "tests"), ("length.max_tokens=1", "length")]
)
def test_a_stage_that_leaves_no_problem_is_named_with_its_setting(
    prepare, tmp_path, setting, stage
):
    question, tests, program = make_story(random.Random(0))
    data = write_rows(tmp_path / "data", make_taco_row("one", question, tests, [program]))
    key = setting.split("=")[0]
    with pytest.raises(EmptyStageError, match=rf"stage {stage} leaves no problem; check {key}"):
        prepare("sources={taco: {}}", setting, data=data)


def test_holding_out_all_problems_is_refused(prepare, tmp_path):
    question, tests, program = make_story(random.Random(0))
    data = write_rows(tmp_path / "data", make_taco_row("one", question, tests, [program]))
    with pytest.raises(BadSetting, match="split.heldout=1: only 1 problems are left"):
        prepare("sources={taco: {}}", "length.max_tokens=6000", "split.heldout=1", data=data)
