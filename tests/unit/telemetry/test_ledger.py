"""The ledger: a prompt's life, and what is missing or doubled, planted one by one."""

import json
from dataclasses import replace

import pytest

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.telemetry.ledger import add_states, check_ledger, select_prompts
from verl_pipeline.telemetry.records import FOLDER, Moment, TrajectoryEvent
from verl_pipeline.telemetry.run_folder import load_run

RUN = MadeUpRun(steps=4, prompts=4, group=3, test_every=2)
SIZE = RUN.steps * RUN.prompts * RUN.group


def edit(folder, keep):
    """Rewrite the trajectories' events without those that ``keep`` turns down."""
    (path,) = (folder / FOLDER).glob("trajectories-*")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if keep(json.loads(line))))


def add(folder, *events):
    (path,) = (folder / FOLDER).glob("trajectories-*")
    with path.open("a") as file:
        file.writelines(json.dumps(vars(event)) + "\n" for event in events)


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path, RUN)
    return tmp_path


def check(folder):
    return check_ledger(load_run(folder))


@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync", "separate_async"])
def test_a_sound_run_has_no_findings(tmp_path, mode):
    write_run(tmp_path, replace(RUN, mode=mode, filtered_share=0.4))
    found = check(tmp_path)
    assert found.is_sound and (found.prompts, found.trajectories) == (16, SIZE)
    assert sum(found.states.values()) == SIZE and found.states.keys() == {"trained", "filtered"}


@pytest.mark.parametrize("killed_at", range(15, 130, 10))
def test_what_a_killed_run_had_in_flight_is_not_lost(tmp_path, killed_at):
    write_run(tmp_path, replace(RUN, killed_at=float(killed_at)))
    assert check(tmp_path).is_sound


def test_a_trajectory_whose_end_is_missing_is_lost(folder):
    edit(folder, lambda e: e["prompt"] != "b2p1" or e["moment"] not in ("trained", "filtered"))
    found = check(folder)
    assert not found.is_sound
    assert {row["prompt"] for row in found.lost.to_pylist()} == {"b2p1"}
    assert found.lost["state"].to_pylist() == ["graded"] * RUN.group
    rows = select_prompts(load_run(folder), is_lost=True)
    assert rows.select(["prompt", "session"]).to_pylist() == [
        {"prompt": "b2p1", "session": session} for session in range(RUN.group)
    ]


def test_a_failed_trajectory_is_not_lost(folder):
    edit(folder, lambda e: e["prompt"] != "b2p1" or e["moment"] in ("submitted", "started"))
    assert not check(folder).is_sound
    add(folder, TrajectoryEvent(Moment.FAILED, START + 400, "b2p1", reason="timeout"))
    found = check(folder)
    assert found.is_sound and found.states["failed"] == RUN.group


def test_a_prompt_that_was_never_started_is_lost(folder):
    edit(folder, lambda e: e["prompt"] != "b3p0" or e["moment"] == "submitted")
    (row,) = check(folder).lost.to_pylist()
    assert (row["prompt"], row["session"], row["state"]) == ("b3p0", None, "submitted")


@pytest.mark.parametrize("session", range(RUN.group))
def test_a_trajectory_that_is_missing_whole_is_found(folder, session):
    edit(folder, lambda e: (e["prompt"], e.get("session")) != ("b2p2", session))
    found = check(folder)
    assert found.short == [("b2p2", RUN.group - 1)] and not found.is_sound


def test_groups_of_a_size_that_the_data_asks_for_are_not_short(folder):
    add(
        folder,
        *(
            TrajectoryEvent(moment, START + 30 + i, "b1p9", session=i, batch=1, step=1)
            for i in range(RUN.group + 2)
            for moment in (Moment.STARTED, Moment.TRAINED)
        ),
    )
    edit(folder, lambda e: (e["prompt"], e.get("session")) != ("b2p2", RUN.group - 1))
    assert check(folder).short == []


def test_a_trajectory_that_was_trained_twice_is_doubled(folder):
    edit(folder, lambda e: e["moment"] != "filtered")
    add(folder, *(TrajectoryEvent(Moment.TRAINED, START + t, "b1p0", session=0) for t in (90, 91)))
    found = check(folder)
    assert [row["prompt"] for row in found.doubled.to_pylist()] == ["b1p0"]


def test_training_again_after_a_resume_is_not_doubling(folder):
    (path,) = (folder / FOLDER).glob("run-*")
    header = json.loads(path.read_text()) | {"started": START + 1000}
    path.write_text(path.read_text() + json.dumps(header) + "\n")
    edit(folder, lambda e: e["moment"] != "filtered")
    add(folder, TrajectoryEvent(Moment.TRAINED, START + 1500, "b4p0", session=0, step=4))
    assert check(folder).doubled.num_rows == 0


def test_both_trained_and_filtered_is_doubled(folder):
    for moment in (Moment.TRAINED, Moment.FILTERED):
        add(folder, TrajectoryEvent(moment, START + 200, "b1p0", session=0, step=1))
    assert check(folder).doubled.num_rows == 1


def test_prompts_are_selected_by_uid_and_step(folder):
    run = load_run(folder)
    rows = select_prompts(run, uid="b3p1").to_pylist()
    assert [row["session"] for row in rows] == [0, 1, 2]
    rows = select_prompts(run, step=3).to_pylist()
    assert {row["step"] for row in rows} == {3} and len(rows) == RUN.prompts * RUN.group
    assert select_prompts(run, uid="nobody").num_rows == 0


def test_states_are_the_last_that_happened(folder):
    table = add_states(load_run(folder).trajectories)
    assert set(table.filter(table["is_validation"])["state"].to_pylist()) == {"graded"}
