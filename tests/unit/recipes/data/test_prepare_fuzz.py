"""`recipes.deepcoder.prepare` with broken data files, settings, rates and arguments."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from tests.helpers.broken_inputs import broken_arguments, broken_contents
from tests.helpers.command_fuzz import (
    Answer,
    FuzzedCommand,
    check_answer,
    check_answers,
    efforts,
    find_faults,
    fuzz,
    run_command,
)
from tests.helpers.damaged_files import damage_file, each_damage
from tests.helpers.source_rows import HUB_EXAMPLES, MBPP_ROW, RLLM_EXAMPLES, TACO_ROW, ingest_file
from tests.helpers.thinned import thin_out
from verl_pipeline.errors import UserError, show_line
from verl_pipeline.recipes.deepcoder.data.problem_records import RemovedRow
from verl_pipeline.testing.tiny_run import write_model

pytestmark = pytest.mark.medium
TACO, MBPP, SETTINGS, RATES = "data/taco.jsonl", "data/mbpp.jsonl", "prepare.yaml", "rates.jsonl"


def read_model() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name))
        return {f"model/{path.name}": path.read_bytes() for path in folder.iterdir()}


PREPARE = FuzzedCommand(
    name="prepare",
    module="verl_pipeline.recipes.deepcoder.prepare",
    arguments=("--config", SETTINGS, "--data", "data", "--output", "out", "hub=false"),
    files={
        TACO: [TACO_ROW, {**TACO_ROW, "id": 8, "question": "Add two other numbers, please."}],
        MBPP: [MBPP_ROW],
        RATES: [{"id": "taco/7", "rate": 0.5}, {"id": "mbpp/601", "rate": 0.25}],
        SETTINGS: {
            "sources": {
                "taco": {"limit": 10, "without_solution": "drop"},
                "mbpp": {"file": MBPP, "without_solution": "keep"},
            },
            "model": "model",
            "seed": 0,
            "prompt": {"style": "instructed", "system": ""},
            "tests": {"min": 2},
            "length": {"max_tokens": 512},
            "contamination": {"tasks": [], "missing": "warn", "threshold": 0.7, "gram": 13},
            "verify": {"solutions": 1, "on_disagreement": "drop", "without_solution": "drop"},
            "near": {"words": 5, "permutations": 32, "threshold": 0.8, "agreeing": 0.5},
            "difficulty": {"mode": "given", "rates": RATES, "low": 0.0, "high": 1.0},
            "split": {"heldout": 0},
            "grader": {"tier": "namespaces", "workers": 1, "url": None},
        },
        **read_model(),
    },
    exit_codes=frozenset({0, 2}),
    links=frozenset({"file", "rates", "tasks", "sources", "taco", "mbpp", "model", "mode"}),
    settings_file=SETTINGS,
    preload=(
        "verl_pipeline.recipes.deepcoder.data.preparation",
        "verl_pipeline.recipes.deepcoder.data.preparation_report",
        "verl_pipeline.recipes.deepcoder.data.preparation_loader",
    ),
)
FILES = (TACO, MBPP, SETTINGS, RATES)
OPTIONS = [
    *("--config", "--data", "sources.taco.limit=", "tests.min=", "near.words=", "model="),
    *("difficulty.rates=", "contamination.tasks=", "grader.workers=", "seed=", "split.heldout="),
]
every_file = pytest.mark.parametrize("slot", thin_out(FILES, 2))


def test_good_files_are_prepared():
    answer = run_command(PREPARE)
    assert answer.exit_code == 0 and "written" in answer.output, answer.output


@every_file
@each_damage
def test_damaged_file(slot, damage):
    if slot in (TACO, MBPP) and damage in ("missing", "a dangling link"):
        pytest.skip("the message lists all names that such a file may have")
    if slot == MBPP and damage in ("empty", "blank lines"):
        pytest.skip("a source without rows is no error; the rows of the other are too long")
    if slot == RATES and damage == "endless zeros":
        pytest.skip("the test's limit of memory is too low for the programs that come first")
    check_answer(PREPARE, damage_file(slot, damage))


@every_file
@efforts(quick=0, many=200)
def test_broken_contents(slot, effort):
    check_answers(PREPARE, broken_contents(PREPARE, slot), effort)


@efforts(quick=0, many=100)
def test_broken_arguments(effort):
    check_answers(PREPARE, broken_arguments(PREPARE, OPTIONS), effort)


@efforts(quick=20, many=500)
@pytest.mark.parametrize(
    "source, row", [example[:2] for example in [*HUB_EXAMPLES, *RLLM_EXAMPLES]]
)
def test_broken_rows_of_every_source(source, row, effort):
    """Read here, without a process: so that many can be tried."""
    command = FuzzedCommand(source, "", (), {"rows.jsonl": [row]}, frozenset({0, 2}))

    @fuzz(effort)
    @given(broken=broken_contents(command, "rows.jsonl"))
    def check(broken):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            broken.make(path)
            try:
                rows = ingest_file(source, path)
                output = "".join(f"{row.detail}\n" for row in rows if isinstance(row, RemovedRow))
            except UserError as error:
                output = show_line(str(error))  # as the command prints it
        assert not find_faults(command, broken, Answer(0, output, ())), output

    check()
