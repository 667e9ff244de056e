"""Every wrong override becomes one line with the nearest name, and all of them at once."""

import os
import random

import pytest
from hydra import initialize_config_module
from omegaconf import OmegaConf

from tests.helpers.thinned import thin_out
from verl_pipeline.overrides import (
    ComposeError,
    compose_overrides,
    list_repeated,
    names_ours,
)


@pytest.fixture(autouse=True)
def with_hydra():
    with initialize_config_module("verl_pipeline.config", version_base=None):
        yield


def find_faults(*overrides: str) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        compose_overrides("one_off_pipeline", overrides)
    return str(caught.value).splitlines()


WRONG = {
    "traner.nnodes=1": "unknown key; did you mean trainer.nnodes?",
    "data.trian_files=x": "unknown key; did you mean data.train_files?",
    "trainer.train_batch_size=8": "unknown key; did you mean data.train_batch_size?",
    "nnodes=2": "unknown key; did you mean trainer.nnodes?",
    "trainer.v1.one_off_pipeline.stalness=0": "did you mean trainer.v1.one_off_pipeline.staleness?",
    "quite.different=1": "a key without a default in verl is added with +quite.different=...",
    "a=~/b": f"nobody expands ~ within a word: write {os.path.expanduser('~')}/b",
    "a=[1": "not an override (no viable alternative at input '[1')",
    "a": "write key=value",
    "+verl_pipeline=cpus": "no such option; did you mean cpu?",
    "+sync_filters=overlng": "no such option; did you mean overlong?",
    "+verl_pipelin=cpu": "nothing reads this key; did you mean +verl_pipeline=cpu?",
    "+trainer.v1.one_off_pipelne.staleness=0": "did you mean +trainer.v1.one_off_pipeline.stal",
    "data@foo=1": "must name one of ",
    "trainer.nnodes=1,2": "several values; write a list as [a,b]",
    "~foo": "there is no foo; leave it out",
    "+trainer.nnodes=3": "trainer.nnodes has a value already; leave the + out",
}


@pytest.mark.parametrize("override", thin_out(WRONG, keep=6))
def test_a_wrong_override_is_one_line(override):
    (line,) = find_faults("trainer.n_gpus_per_node=2", override)
    assert line.startswith(f"{override}: ") and WRONG[override] in line


def test_a_value_of_several_lines_is_shown_in_one():
    (line,) = find_faults("traner.x='a\nb\x1b[1m'")
    assert line.startswith("traner.x='a b\\x1b[1m': unknown key")


def test_all_wrong_overrides_are_named():
    lines = find_faults(*WRONG)
    for override, message in WRONG.items():
        assert any(line.startswith(f"{override}: ") and message in line for line in lines)


def test_a_letter_left_out_of_any_key_of_verls_is_found():
    config = compose_overrides("one_off_pipeline", [])
    tree = OmegaConf.to_container(config, resolve=False)
    keys = [".".join(path) for path in walk(tree)]
    chance = random.Random(3)
    wrong = {}
    for key in chance.sample(keys, 60):
        letters = [place for place, letter in enumerate(key) if letter.isalpha()]
        place = chance.choice(letters)
        slip = key[:place] + key[place + 1 :]
        if slip not in keys and "" not in slip.split("."):
            wrong[f"{slip}=1"] = key
    lines = find_faults(*wrong)
    assert [line.split(": ")[0] for line in lines] == list(wrong)
    guessed = [line.split("did you mean ")[-1].rstrip("?") for line in lines]
    assert all(guess in keys or "added with" in guess for guess in guessed)
    hits = sum(guess == key for guess, key in zip(guessed, wrong.values(), strict=True))
    assert hits > 0.9 * len(wrong)


def walk(node, path=()):
    for name, child in node.items():
        if isinstance(child, dict) and child:
            yield from walk(child, (*path, str(name)))
        else:
            yield (*path, str(name))


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.nnodes=1", "trainer.nnodes=2"],  # scripts append "$@": the last one counts
        ["+data.gen_batch_size=2"],
        ["+trainer.v1.separate=1"],
        ["+verl_pipeline=cpu", "++trainer.nnodes=2", "~trainer.project_name"],
        ["hydra/callbacks=check_only", "hydra.run.dir=x"],
        ["data.train_files=[a.parquet,b.parquet]"],
    ],
)
def test_what_hydra_takes_passes(overrides):
    compose_overrides("one_off_pipeline", overrides)


def test_a_key_given_twice_is_listed():
    assert list_repeated(["a=1", "b=1", "+a=2", "b.c=1"]) == ["+a=2"]


@pytest.mark.parametrize(
    ("override", "ours"),
    [
        ("trainer.v1.trainer_mode=one_off_pipeline", True),
        ("trainer.v1.trainer_mode=one_off_pipelin", True),
        ("trainer.v1.trainr_mode=sync_filtered", True),
        ("+trainer.v1.one_of_pipeline.staleness=0", True),
        ("+verl_pipelin=cpu", True),
        ("+sync_filters=overlong", True),
        ("trainer.v1.trainer_mode=sync", False),
        ("trainer.v1.trainer_mode=separate_async", False),
        ("reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code", False),
        ("trainer.project_name=verl_pipeline", False),
        ("traner.nnodes=1", False),
    ],
)
def test_only_commands_that_choose_ours_are_looked_at(override, ours):
    assert names_ours(override) == ours
