"""Stage ``length``: builds the prompt of each record and counts its tokens.

Invariants:
* A prompt shows the question and the names that the tests call, but no test and no solution.
* A prompt that is too long is removed, never cut.
"""

import ast
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from verl_pipeline.evaluation.tasks._prompts import (
    ANSWER_FORMAT,
    EXPERT_INSTRUCTION,
    STARTER_FORMAT,
    STDIN_FORMAT,
)
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.recipes.deepcoder.data.preparation_config import LengthConfig, PromptConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    Message,
    ProblemRecord,
    RecordSet,
    RemovedRow,
)

# Prompts that are tokenized at a time; the tokenizer spreads them over its own threads.
_BATCH_PROMPTS = 256


class Tokenizer(Protocol):
    """A tokenizer of transformers with a chat template."""

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any: ...

    def __call__(self, text: Any, **settings: Any) -> Any: ...


def filter_by_length(
    records: RecordSet, tokenizer: Tokenizer, config: LengthConfig, prompt_config: PromptConfig
) -> Iterator[Decision]:
    """Keep prompts of at most ``length.max_tokens`` tokens.

    The count includes the chat template up to the point where the model's answer begins.
    """
    for batch in _batch_records(records):
        prompts = [build_prompt(record, prompt_config) for record in batch]
        counts = _count_tokens(tokenizer, prompts)
        for record, prompt, count in zip(batch, prompts, counts, strict=True):
            if count <= config.max_tokens:
                fields = {"prompt": prompt, "prompt_tokens": count}
                yield KeptRow(record.id, record.source, fields)
            else:
                reason = f"prompt of more than {config.max_tokens} tokens"
                detail = f"{count} tokens (length.max_tokens)"
                yield RemovedRow(record.id, record.source, reason, detail)


def build_prompt(record: ProblemRecord, config: PromptConfig) -> list[Message]:
    """Build the conversation that asks the model to solve the problem."""
    if record.prompt:
        return [dict(message) for message in record.prompt]
    text = record.question
    if config.style == "instructed" or record.source == "livecodebench":
        question = f"### Question:\n{record.question.strip()}\n\n"
        text = f"{EXPERT_INSTRUCTION}{question}{_describe_answer_format(record)}{ANSWER_FORMAT}"
    system = [] if config.system is None else [{"role": "system", "content": config.system}]
    return [*system, {"role": "user", "content": text}]


def _describe_answer_format(record: ProblemRecord) -> str:
    if not record.calls:
        return STDIN_FORMAT
    starter = record.starter.rstrip() or build_starter(record.calls, record.solutions)
    return STARTER_FORMAT.format(starter=starter)


def build_starter(names: Sequence[str], solutions: Sequence[str]) -> str:
    """Return the signatures of what the tests call, as starter code without bodies.

    They come from the first solution that defines all names; if none does, the names have
    ``(...)`` as arguments.
    """
    for program in solutions:
        if find_syntax_error(program) is None and (
            signatures := _find_signatures(names, ast.parse(program))
        ):
            return "\n\n".join(signatures)
    return "\n\n".join(f"def {name}(...):" for name in names)


def _find_signatures(names: Sequence[str], program: ast.Module) -> list[str] | None:
    """Return the signature of each name, or None if the program does not define all of them."""
    signatures = []
    for name in names:
        for owner, node in _list_definitions(program):
            if node.name == name:
                signatures.append(_format_definition(owner, node))
                break
        else:
            return None
    return signatures


def _list_definitions(
    program: ast.Module,
) -> Iterator[tuple[str | None, ast.FunctionDef | ast.ClassDef]]:
    """Yield functions and classes, then the methods of ``class Solution`` with the class's name."""
    for node in program.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield None, node
    for node in program.body:
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            for method in _list_methods(node):
                yield node.name, method


def _list_methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [method for method in node.body if isinstance(method, ast.FunctionDef)]


def _format_definition(owner: str | None, node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        public_methods = [
            method
            for method in _list_methods(node)
            if method.name == "__init__" or not method.name.startswith("_")
        ]
        signatures = [f"    {_format_signature(method)}" for method in public_methods]
        return "\n".join([f"class {node.name}:", *signatures])
    signature = _format_signature(node)
    return f"class {owner}:\n    {signature}" if owner else signature


def _format_signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}:"


def _count_tokens(tokenizer: Tokenizer, prompts: Sequence[Sequence[Message]]) -> list[int]:
    texts = [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    # The template has already written the special tokens.
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _batch_records(records: RecordSet) -> Iterator[list[ProblemRecord]]:
    rows = iter(records)
    while batch := list(itertools.islice(rows, _BATCH_PROMPTS)):
        yield batch
