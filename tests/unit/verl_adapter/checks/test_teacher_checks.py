"""A teacher with another tokenizer is refused by name, before a model loads."""

import json
import shutil

import pytest

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checks.check_list import examine_run
from verl_pipeline.verl_adapter.checks.teacher_checks import (
    check_distillation_loss,
    check_same_tokenizer,
    check_teachers,
)

TEACHER = "distillation.teacher_models.teacher_model.model_path"


@pytest.fixture
def student(tiny_directory):
    return tiny_directory / "model"


def change_tokenizer(student, folder, change):
    """Copy the tokenizer of ``student``, without weights, and change its JSON."""
    folder.mkdir()
    for path in student.iterdir():
        # Without the model's configuration, which would choose a class that builds parts anew.
        if "token" in path.name or path.name.endswith(".jinja"):
            shutil.copy(path, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings))
    return folder


def swap_letters(content):
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def list_refusals(composed, teacher):
    config = composed(
        "distillation.enabled=True",
        "distillation.nnodes=1",
        "distillation.n_gpus_per_node=1",
        f"{TEACHER}={teacher}",
    )
    return [str(finding) for finding in check_teachers(config)]


def test_the_same_tokenizer_is_accepted_without_weights(composed, student, tmp_path):
    teacher = change_tokenizer(student, tmp_path / "teacher", lambda _content: None)
    assert list_refusals(composed, teacher) == []
    check_same_tokenizer(str(student), str(teacher))


def test_another_vocabulary_is_refused_with_both_names_and_the_token(composed, student, tmp_path):
    teacher = change_tokenizer(student, tmp_path / "teacher", swap_letters)
    [refusal] = list_refusals(composed, teacher)
    assert refusal.startswith(f"{TEACHER}={teacher}: another tokenizer than ")
    assert str(student) in refusal and "'a' is token" in refusal and "\n" not in refusal
    with pytest.raises(ConfigError, match="'a' is token"):
        check_same_tokenizer(str(student), str(teacher))


def test_another_splitting_of_the_same_vocabulary_is_refused(composed, student, tmp_path):
    def add_a_space(content):
        content["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        }

    teacher = change_tokenizer(student, tmp_path / "teacher", add_a_space)
    [refusal] = list_refusals(composed, teacher)
    assert "split differently from its token 0 on" in refusal


def test_a_teacher_that_is_not_there_is_named(composed, tmp_path):
    assert list_refusals(composed, "null") == [
        f"{TEACHER} is not set: name the teacher's folder or hub name"
    ]
    [refusal] = list_refusals(composed, tmp_path / "gone")
    assert refusal == f"{TEACHER}={tmp_path}/gone: no such folder"


def test_without_distillation_no_tokenizer_is_read(composed, tmp_path):
    assert list(check_teachers(composed(f"{TEACHER}={tmp_path}/gone"))) == []


def test_the_check_is_part_of_every_runs_checks(composed, tmp_path):
    config = composed("distillation.enabled=True", f"{TEACHER}={tmp_path}/gone")
    assert any("/gone: no such folder" in line for line in examine_run(config).errors)


POLICY_GRADIENT = (
    "distillation.enabled=True",
    "distillation.distillation_loss.use_policy_gradient=True",
    "distillation.distillation_loss.loss_mode=k1",
)
BYPASS = (
    "trainer.v1.one_off_pipeline.correction=as_configured",
    "algorithm.rollout_correction.bypass_mode=True",
)


@pytest.mark.parametrize(
    ("overrides", "is_refused"),
    [
        (POLICY_GRADIENT, True),
        ((*POLICY_GRADIENT, *BYPASS), False),
        ((*POLICY_GRADIENT, "trainer.v1.one_off_pipeline.staleness=0"), False),
        ((*POLICY_GRADIENT, *BYPASS, "algorithm.rollout_correction.rollout_is=token"), True),
        (("distillation.enabled=True",), False),
        (POLICY_GRADIENT[1:], False),
    ],
)
def test_importance_weights_that_verls_loss_cannot_take_are_refused(
    composed, overrides, is_refused
):
    refusals = [str(one) for one in check_distillation_loss(composed(*overrides))]
    assert len(refusals) == is_refused
    if is_refused:
        assert "correction=as_configured" in refusals[0] and "\n" not in refusals[0]
