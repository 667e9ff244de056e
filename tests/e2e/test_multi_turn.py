"""verl's agent loop with tools on a real rollout server: what its turns may generate."""

import json
from collections import defaultdict

import pytest

from tests.helpers import multi_turn_run, multi_turn_tools
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.testing import equivalence, runs, tiny_run

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]

PROMPT, RESPONSE = 64, 96
ROLLOUT = "actor_rollout_ref.rollout"


def test_no_turn_is_granted_more_than_is_left(runs_directory):
    directory = runs_directory / "multi-turn"
    turns_file = directory / "turns.jsonl"
    settings = [
        *tiny_run.make_overrides(runs_directory, rows=equivalence.ROWS, batch=equivalence.BATCH),
        f"data.max_prompt_length={PROMPT}",
        f"data.max_response_length={RESPONSE}",
        f"{ROLLOUT}.max_model_len={PROMPT + RESPONSE + 32}",
        f"{ROLLOUT}.nnodes=1",
        f"{ROLLOUT}.multi_turn.enable=True",
        f"{ROLLOUT}.multi_turn.format={multi_turn_run.FORMAT}",
        f"{ROLLOUT}.multi_turn.function_tool_path={multi_turn_tools.__file__}",
        f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
        f"+{ROLLOUT}.agent.agent_loop_manager_class={multi_turn_run.__name__}.RecordingManager",
        "trainer.total_training_steps=2",
    ]
    extra = {multi_turn_run.TURNS: str(turns_file)}
    run = runs.run_training(directory, settings, **extra)
    assert run.returncode == 0, tail(run)
    turns = defaultdict(list)
    for line in turns_file.read_text().splitlines():
        request, conversation, granted = json.loads(line)
        left = PROMPT + RESPONSE - conversation
        assert granted == max(1, min(RESPONSE, left))
        turns[request].append((conversation, granted))
    # One request is one trajectory. verl's own client would grant RESPONSE to each turn.
    later = [turn for group in turns.values() for turn in group[1:]]
    assert len(later) > len(turns) / 2 and max(len(group) for group in turns.values()) > 2
    assert all(granted < RESPONSE for _conversation, granted in later)
    # The tool was called: its answer is part of the conversation.
    assert len(run.trajectories) == 2 * equivalence.BATCH * 4
    for step in (1, 2):
        trajectories = [row for row in run.trajectories if row["step"] == step]
        versions = {tuple(row["versions"]) for row in trajectories}
        assert len(versions) == 1 and len(set(versions.pop())) == 1
        metrics = run.metrics[step]
        assert metrics["pipeline/infrastructure/missing"] == 0
        assert metrics["num_turns/max"] > 2
    check_clean(run)
