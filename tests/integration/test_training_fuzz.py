"""`main --check`, the recipe's `train --dry-run` and `quickstart` with broken inputs.

Exit codes: 0, or 2 for whatever a user wrote.
"""

import pytest
from hypothesis import strategies as st

from tests.helpers.broken_inputs import BrokenInput, broken_arguments, broken_contents
from tests.helpers.command_fuzz import check_answer, check_answers, efforts, run_command
from tests.helpers.damaged_files import FILE_DAMAGES, damage_file
from tests.helpers.training_commands import (
    CHECK,
    CHECK_FILE,
    CONFIGURATION,
    HARDWARE,
    HELDOUT_DATA,
    LOOPS,
    MODEL,
    QUICKSTART,
    REWARD,
    STAGES,
    STATE,
    TRAIN,
    TRAIN_DATA,
    TRAIN_HARDWARE,
)

ROLLOUT, REWARD_KEY = "actor_rollout_ref.rollout", "reward.custom_reward_function"
CHECK_OPTIONS = [
    *("data.train_files=", "data.val_files=", "data.train_batch_size=", "data.seed="),
    *("data.max_prompt_length=", "data.max_response_length=", "+data.gen_batch_size="),
    *("data.custom_cls.path=", "data.sampler.class_path=", "data.tool_config_path="),
    *("trainer.nnodes=", "trainer.n_gpus_per_node=", "trainer.device=", "trainer.logger="),
    *("trainer.total_training_steps=", "trainer.save_freq=", "trainer.resume_mode="),
    *("trainer.resume_from_path=", "trainer.default_local_dir=", "trainer.use_v1="),
    *("trainer.v1.trainer_mode=", "trainer.v1.one_off_pipeline=", "trainer.v1.sampler="),
    *("trainer.v1.one_off_pipeline.staleness=", "trainer.v1.one_off_pipeline.filters="),
    *("trainer.v1.one_off_pipeline.deadlines.reward_s=", "+trainer.v1.one_off_pipeline.x="),
    *("trainer.v1.one_off_pipeline.max_infrastructure_share=", "trainer.v1.sync_filtered="),
    *("actor_rollout_ref.model.path=", "actor_rollout_ref.model.external_lib="),
    *("actor_rollout_ref.model.override_config=", "actor_rollout_ref.actor.optim.lr="),
    *("actor_rollout_ref.actor.ppo_mini_batch_size=", "actor_rollout_ref.actor.strategy="),
    *(f"{ROLLOUT}.n=", f"{ROLLOUT}.name=", f"{ROLLOUT}.max_model_len=", f"{ROLLOUT}.nnodes="),
    *(f"{ROLLOUT}.agent.agent_loop_manager_class=", f"{ROLLOUT}.agent.agent_loop_config_path="),
    *(f"{ROLLOUT}.checkpoint_engine.custom_backend_module=", f"{ROLLOUT}.temperature="),
    *(f"{REWARD_KEY}.path=", f"{REWARD_KEY}.name=", f"+{REWARD_KEY}.reward_kwargs.tier="),
    *("reward.reward_manager.name=", "reward.reward_manager.source=", "reward.num_workers="),
    *("reward.sandbox_fusion.url=", "reward.reward_model.enable=", "algorithm.adv_estimator="),
    *("algorithm.gamma=", "algorithm.rollout_correction.rollout_is=", "algorithm="),
    *("+verl_pipeline=", "+grpo_plus=", "+sync_filters=", "hydra/callbacks=", "hydra.run.dir="),
    *("traner.nnodes=", "trainer=", "data=", "actor_rollout_ref=", "reward=", "~trainer.nnodes="),
    *("--config-dir", "--config-name", "--config-path", ""),
]
CHECK_VALUES = [
    *("???", "${data.seed}", "${no.such}", "[1,2]", "{a:1}", "1,2", "-1", "1e18", "1000000007"),
    *("data/train.parquet", "[data/train.parquet,5]", "no.parquet", "model", "reward.py", "conf"),
    *("pkg://json", "pkg://no.such", "no_function", "grpo", "cpu", "vllm", "json.JSONDecoder"),
    *("hdfs://x/y", "http://x", "[{name: overlong, mode: 5}]", "s3://a/b.parquet", "a.b", "C:\\x"),
]
TRAIN_OPTIONS = [
    *("--stages", "--hardware", "--run", "--stage", "--data", "--output", "--reproduce"),
    *("data.train_batch_size=", "trainer.save_freq=", "trainer.logger=", "data.train_files="),
    *("actor_rollout_ref.model.path=", f"{ROLLOUT}.n=", "actor_rollout_ref.actor.optim.lr="),
    *("actor_rollout_ref.actor.checkpoint=", "actor_rollout_ref.actor.checkpoint.save_contents="),
    *("actor_rollout_ref.actor.ulysses_sequence_parallel_size=", "trainer.nnodes=", "reproduce="),
    *("data.shuffle=", "traner.nnodes=", "trainer=", "+grpo_plus=", ""),
]
QUICK_FILES = [(CHECK, MODEL), (TRAIN, STAGES)]
CHECK_FILES = [(CHECK, slot) for slot in (TRAIN_DATA, MODEL, REWARD, LOOPS)]
TRAIN_FILES = [
    *((TRAIN, slot) for slot in (TRAIN_DATA, HELDOUT_DATA, MODEL, STAGES, STATE)),
    (TRAIN_HARDWARE, HARDWARE),
]
FILES = [*CHECK_FILES, (CHECK_FILE, CONFIGURATION), *TRAIN_FILES]
SETTINGS_FILES = [(CHECK_FILE, CONFIGURATION), (TRAIN, STAGES)]
# The rows of data files are left to verl.
OTHER_OBJECTS = [(CHECK, MODEL), (CHECK, LOOPS), (TRAIN_HARDWARE, HARDWARE)]
_OF_ROWS = ("UTF-16", "UTF-32", "invalid UTF-8", "NUL bytes", "parquet")


def name_file(case):
    return f"{case[0].name}: {case[1]}"


@pytest.mark.parametrize("command", [CHECK, CHECK_FILE, TRAIN], ids=lambda command: command.name)
def test_good_files_are_accepted(command):
    answer = run_command(command)
    assert answer.exit_code == 0, answer.output


def list_damages():
    for case in FILES:
        for damage in FILE_DAMAGES:
            if case[1].endswith(".parquet") and damage in _OF_ROWS:
                continue  # it is not text, and the rows' contents are listed as not checked
            if (
                case[0] is TRAIN
                and case[1].endswith(".parquet")
                and damage
                in (
                    "missing",
                    "a dangling link",
                )
            ):
                continue  # a dry run may come before the data
            quick = case in QUICK_FILES and damage == "UTF-16"
            marks = () if quick else (pytest.mark.slow,)
            yield pytest.param(case, damage, id=f"{name_file(case)}: {damage}", marks=marks)


@pytest.mark.parametrize(("case", "damage"), [*list_damages()])
def test_damaged_file(case, damage):
    check_answer(case[0], damage_file(case[1], damage))


@pytest.mark.parametrize("case", SETTINGS_FILES, ids=name_file)
@efforts(quick=1, many=200)
def test_broken_settings(case, effort):
    check_answers(case[0], broken_contents(*case), effort)


@pytest.mark.parametrize("case", OTHER_OBJECTS, ids=name_file)
@efforts(quick=0, many=100)
def test_broken_contents(case, effort):
    check_answers(case[0], broken_contents(*case), effort)


@pytest.mark.parametrize(
    ("command", "options"),
    [(CHECK, CHECK_OPTIONS), (TRAIN, TRAIN_OPTIONS)],
    ids=lambda value: getattr(value, "name", ""),
)
@efforts(quick=2, many=200)
def test_broken_arguments(command, options, effort):
    check_answers(command, broken_arguments(command, options, CHECK_VALUES), effort)


# An accepted argument would start a training of many minutes.
REFUSED = [
    *(
        ("--steps", steps)
        for steps in ("", " ", "0", "-5", "2.5", "nan", "inf", "1e400", "true", "[", "9" * 20)
    ),
    *(("--steps", steps) for steps in ("1" * 400, "1" * 5000, "é", "\x1b[31m", "${x}", "1000000")),
    *(("--output", path) for path in ("", "taken", "taken/below", "/dev/null", "é" * 300)),
    ("--stepz", "3"),
    ("--steps=3", "more"),
]


@efforts(quick=3, many=100)
def test_refused_arguments_of_the_quickstart(effort):
    refused = st.sampled_from(REFUSED).map(
        lambda words: BrokenInput(
            "", repr(words), arguments=words, words=(words[0], words[1]), must_be_refused=True
        )
    )
    check_answers(QUICKSTART, refused, effort)
