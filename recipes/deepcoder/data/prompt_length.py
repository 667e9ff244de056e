"""Stage ``length``: the prompt of each record, and how many tokens it has.

Invariants:
* A prompt shows the question and the names that the tests call; no test and no solution.
* A prompt that is too long is removed, never cut.
"""

import ast
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from recipes.deepcoder.data.preparation_config import LengthConfig, PromptConfig
from recipes.deepcoder.data.problem_records import Decision, Kept, Message, Record, Records, Removed
from verl_pipeline.evaluation.tasks._reading import EXPERT, FROM_STDIN, USE_BACKTICKS, WITH_STARTER
from verl_pipeline.grading.problem import syntax_error

# Conversations that are made tokens of at a time, in the tokenizer's own threads.
_BATCH = 256


class Tokenizer(Protocol):
    """As of transformers, with a chat template."""

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any: ...

    def __call__(self, text: Any, **settings: Any) -> Any: ...


def length(
    records: Records, tokenizer: Tokenizer, config: LengthConfig, prompt_config: PromptConfig
) -> Iterator[Decision]:
    """At most ``length.max_tokens`` tokens, with the chat template and up to where the model goes
    on.
    """
    for batch in _batched(records):
        prompts = [prompt_of(record, prompt_config) for record in batch]
        for record, prompt, count in zip(batch, prompts, _counts(tokenizer, prompts), strict=True):
            if count <= config.max_tokens:
                yield Kept(record.id, record.source, {"prompt": prompt, "prompt_tokens": count})
            else:
                reason = f"prompt of more than {config.max_tokens} tokens"
                yield Removed(
                    record.id, record.source, reason, f"{count} tokens (length.max_tokens)"
                )


def prompt_of(record: Record, config: PromptConfig) -> list[Message]:
    """The conversation that a model is asked with."""
    if record.prompt:
        return [dict(message) for message in record.prompt]
    text = record.question
    if config.style == "instructed" or record.source == "livecodebench":
        text = (
            f"{EXPERT}### Question:\n{record.question.strip()}\n\n{_format(record)}{USE_BACKTICKS}"
        )
    system = [] if config.system is None else [{"role": "system", "content": config.system}]
    return [*system, {"role": "user", "content": text}]


def _format(record: Record) -> str:
    if not record.calls:
        return FROM_STDIN
    return WITH_STARTER.format(
        starter=record.starter.rstrip() or starter_of(record.calls, record.solutions)
    )


def starter_of(names: Sequence[str], solutions: Sequence[str]) -> str:
    """The heads of what the tests call, as the first solution that has them defines them; without
    one, bare names.
    """
    for program in solutions:
        if syntax_error(program) is None and (heads := _heads(names, ast.parse(program))):
            return "\n\n".join(heads)
    return "\n\n".join(f"def {name}(...):" for name in names)


def _heads(names: Sequence[str], program: ast.Module) -> list[str] | None:
    heads = []
    for name in names:
        for owner, node in _definitions(program):
            if node.name == name:
                heads.append(_head(owner, node))
                break
        else:
            return None
    return heads


def _definitions(
    program: ast.Module,
) -> Iterator[tuple[str | None, ast.FunctionDef | ast.ClassDef]]:
    """Functions and classes of the program, and the methods of ``class Solution``, with their
    class.
    """
    for node in program.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield None, node
    for node in program.body:
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            yield from (
                (node.name, method) for method in node.body if isinstance(method, ast.FunctionDef)
            )


def _head(owner: str | None, node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
        public = [
            method
            for method in methods
            if method.name == "__init__" or not method.name.startswith("_")
        ]
        return "\n".join(
            [f"class {node.name}:", *(f"    {_signature(method)}" for method in public)]
        )
    return f"class {owner}:\n    {_signature(node)}" if owner else _signature(node)


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}:"


def _counts(tokenizer: Tokenizer, prompts: Sequence[Sequence[Message]]) -> list[int]:
    texts = [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _batched(records: Records) -> Iterator[list[Record]]:
    rows = iter(records)
    while batch := list(itertools.islice(rows, _BATCH)):
        yield batch
