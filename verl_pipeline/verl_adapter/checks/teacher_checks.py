"""Whether teachers of on-policy distillation read the student's tokens as the student writes them.

A teacher scores the token ids that the student has sampled. With another tokenizer it scores other
texts, without any error: the run would learn noise.

Invariants:
* Only tokenizers are read, no weights.
* A refusal names both models and the first token that differs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.distillation import is_distillation_enabled

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    TRAINER_MODE,
    ConfigError,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.check_report import Findings, OutOfReachError
from verl_pipeline.verl_adapter.checks.model_checks import MODEL, find_local_path

TEACHERS = "distillation.teacher_models"
# Letters, digits, blanks and code: tokenizers of one vocabulary may still split texts differently.
SAMPLE = "def f(n):\n    return n * 1234567 + 0.5  # naïve – 你好\n\n\tprint('a  b')\n"


def check_teachers(config: DictConfig) -> Findings:
    """Each teacher that the run starts has a model, and the student's tokenizer."""
    if not is_distillation_enabled(config.get("distillation")):
        return
    teachers = {
        f"{TEACHERS}.{name}.model_path": OmegaConf.select(teacher, "model_path")
        for name, teacher in config.distillation.teacher_models.items()
    }
    if len(teachers) > 1:  # verl drops the default entry beside others
        teachers.pop(f"{TEACHERS}.teacher_model.model_path", None)
    student = config.actor_rollout_ref.model
    trust = bool(student.trust_remote_code)
    own = _load_tokenizer(f"{MODEL}.path", student.tokenizer_path or student.path, trust)
    for field, path in teachers.items():
        if path is None:
            yield ConfigError(f"{field} is not set: name the teacher's folder or hub name")
            continue
        try:
            difference = find_tokenizer_difference(own, _load_tokenizer(field, path, trust))
        except ConfigError as error:
            yield error
            continue
        if difference:
            yield ConfigError(
                f"{field}={path}: another tokenizer than {MODEL}.path={student.path}: "
                f"{difference}; choose a teacher with the student's tokenizer, or distil by texts "
                "(python -m verl_pipeline.recipes.deepcoder.distill --method sft)"
            )


def check_distillation_loss(config: DictConfig) -> Findings:
    """verl 0.9.1 fails in the first update with both: it pads all of that loss but the weights."""
    distillation = config.get("distillation")
    if not is_distillation_enabled(distillation):
        return
    weights = config.algorithm.rollout_correction.rollout_is
    is_auto = (
        OmegaConf.select(config, f"{PIPELINE_KEY}.correction") == "auto"
        and config.trainer.v1.trainer_mode == TRAINER_MODE
        and load_pipeline_config(config).most_staleness > 0
    )
    if distillation.distillation_loss.use_policy_gradient and (weights or is_auto):
        field = "algorithm.rollout_correction"
        yield ConfigError(
            "distillation.distillation_loss.use_policy_gradient=True: verl's loss takes no "
            f"importance weights ({field}.rollout_is, which {PIPELINE_KEY}.correction=auto sets); "
            f"set {PIPELINE_KEY}.correction=as_configured and {field}.bypass_mode=True, which "
            "corrects by the clipped ratio"
        )


def check_same_tokenizer(student: str, teacher: str) -> None:
    """Refuse a teacher whose tokenizer is not the student's.

    Args:
        student, teacher: folders or hub names.

    Raises:
        ConfigError: one line with both names and the difference; or a tokenizer cannot be read.
    """
    own = _load_tokenizer("student", student, False)
    difference = find_tokenizer_difference(own, _load_tokenizer("teacher.model", teacher, False))
    if difference:
        raise ConfigError(
            f"teacher.model={teacher}: another tokenizer than student={student}: {difference}; "
            "choose a teacher with the student's tokenizer, or distil by texts (method=sft)"
        )


def find_tokenizer_difference(own: Any, other: Any) -> str | None:
    """Return how two tokenizers differ in what a token id means, or None.

    Tokens beyond the other's vocabulary count as a difference only if a text can hold them.
    """
    mine, theirs = own.get_vocab(), other.get_vocab()
    if mine != theirs:
        return _describe_vocabularies(mine, theirs)
    if own.eos_token_id != other.eos_token_id:
        return f"the text ends with token {own.eos_token_id} there, with {other.eos_token_id} here"
    pieces, others = (one.encode(SAMPLE, add_special_tokens=False) for one in (own, other))
    if pieces != others:
        place = next(
            (i for i, pair in enumerate(zip(pieces, others, strict=False)) if pair[0] != pair[1]),
            min(len(pieces), len(others)),
        )
        return f"a text of code is split differently from its token {place} on"
    return None


def _describe_vocabularies(mine: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    for token in sorted(mine, key=lambda text: mine[text]):
        if theirs.get(token) != mine[token]:
            found = theirs.get(token)
            there = "is not in the teacher's" if found is None else f"is {found} in the teacher's"
            return f"{token!r} is token {mine[token]} in the student's vocabulary and {there}"
    extra = min((token for token in theirs if token not in mine), key=lambda text: theirs[text])
    return f"{extra!r}, token {theirs[extra]} of the teacher, is not in the student's vocabulary"


def _load_tokenizer(field: str, path: str, trust: bool) -> Any:
    from transformers import AutoTokenizer

    local = find_local_path(path)
    try:
        return AutoTokenizer.from_pretrained(str(local or path), trust_remote_code=trust)
    except Exception as error:  # of transformers, the hub's client, or the model's own code
        reason = " ".join(str(error).split())[:200]
        if local is not None and Path(local).is_dir():
            raise ConfigError(f"{field}={path}: its tokenizer cannot be read: {reason}") from error
        if local is not None:
            raise ConfigError(f"{field}={path}: no such folder") from error
        raise OutOfReachError(f"{field}={path}: its tokenizer cannot be read: {reason}") from error
