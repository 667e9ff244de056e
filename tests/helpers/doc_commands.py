"""Commands and Python code of the documents, and what is wrong with them.

Invariants:
* Options are those of the command objects: click parses each line, as it does for a user.
* Nothing is run: a command is parsed, and its function not called.
* What stands for something else (``<overrides>``, ``...``) is a word like any other.
"""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import typer
import yaml

from tests.helpers.repository import ROOT
from verl_pipeline import cli

SHELLS = {"", "bash", "sh", "shell", "console"}
PYTHON = {"python", "py"}
OURS, VERLS = "verl_pipeline.main", "verl.trainer.main_ppo"
FIELDS = "trainer.v1.one_off_pipeline"
# Options of the entry points that are not click's.
ENTRY_OPTIONS = {"--check", "--config-dir", "--config-name"}
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
_FIELD = re.compile(rf"{re.escape(FIELDS)}((?:\.\w+)*)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        reason: why it is not run, from the comment above it; "" if there is none.
    """

    language: str
    text: str
    reason: str


def list_blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a document, without their indentation."""
    blocks = []
    for match in _BLOCK.finditer(markdown):
        indent = len(match["indent"])
        text = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
        blocks.append(Block(match["language"].lower(), text, match["reason"] or ""))
    return blocks


def list_commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a shell's block, without variables before it."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    for line in joined.splitlines():
        # A placeholder in angle brackets is no redirection.
        text = re.sub(r"<[^<>|&;()]+>", "PLACEHOLDER", line.strip().removeprefix("$ "))
        lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:  # prose, or output
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if word and set(word) <= set(";|&"):
                yield from _clean(command)
                command = []
            else:
                command.append(word)


def _clean(words: list[str]) -> Iterator[list[str]]:
    """Without redirections and variables; nothing if nothing is left."""
    kept = []
    skips = False
    for word in words:
        if skips or set(word) <= set("<>"):
            skips = not skips
            continue
        kept.append(word)
    while kept and _ASSIGNMENT.match(kept[0]):
        kept.pop(0)
    if kept:
        yield kept


def find_problems(words: list[str]) -> list[str]:
    """What is wrong with a command; [] if it is none of ours."""
    program = Path(words[0]).name
    if program == "make":
        return _check_make(words[1:])
    if program == "verl-pipeline":
        return _parse(typer.main.get_command(cli.app), words[1:])
    if re.fullmatch(r"python[\d.]*", program) and len(words) > 2 and words[1] == "-m":
        return _check_module(words[2], words[3:])
    return []


def _check_make(words: list[str]) -> list[str]:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))
    problems = []
    for word in words:
        if _ASSIGNMENT.match(word):
            if not re.search(rf"\b{word.partition('=')[0]}\b", text):
                problems.append(f"the Makefile has no variable {word}")
        elif word not in targets:
            problems.append(f"the Makefile has no target {word}")
    return problems


def _check_module(module: str, words: list[str]) -> list[str]:
    if module in (OURS, VERLS):
        return _check_overrides(module, words)
    if module.split(".")[0] not in ("benchmarks", "verl_pipeline", "tests", "docs_site"):
        return []
    if module.endswith("..."):
        return []
    path = ROOT.joinpath(*module.split("."))
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return [f"no module {module}"]
    source = file.read_text()
    name = f"{module}.__main__" if path.is_dir() else module
    if re.search(r"typer\.run\(main\)|^ +app\(\)$", source, re.MULTILINE):
        return _parse(_load_command(name), words)
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    return [f"{module} has no {option}" for option in options if f'"{option}"' not in source]


@cache
def _load_command(module: str):
    loaded = importlib.import_module(module)
    if hasattr(loaded, "app"):
        return typer.main.get_command(loaded.app)
    app = typer.Typer(add_completion=False)
    app.command()(loaded.main)
    return typer.main.get_command(app)


def _parse(command, words: list[str]) -> list[str]:
    """Let click parse the words, down to the last subcommand."""
    try:
        context = command.make_context(command.name, list(words))
        if not hasattr(command, "commands"):
            return []
        left = [*context._protected_args, *context.args]
        _name, subcommand, rest = command.resolve_command(context, left)
        return _parse(subcommand, rest)
    except typer.Exit:
        return []
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own errors have it
            raise
        # Without a message: a group of commands that shows its help.
        return list(filter(None, [error.format_message()]))


def _check_overrides(module: str, words: list[str]) -> list[str]:
    problems = []
    for word in words:
        key = word.partition("=")[0]
        if word.startswith("--"):
            if module == VERLS or key not in ENTRY_OPTIONS:
                problems.append(f"{module} has no {key}")
        elif key.startswith(f"{FIELDS}.") and module == VERLS:
            problems.append(f"{key} needs a + on verl's entry")
        elif key.startswith(f"+{FIELDS}.") and module == OURS:
            problems.append(f"{key} takes no + on ours")
        elif re.fullmatch(r"\+(verl_pipeline|sync_filters|grpo_plus)", key):
            file = ROOT / "verl_pipeline/config" / key[1:] / f"{word.partition('=')[2]}.yaml"
            if not file.is_file():
                problems.append(f"no overlay {word}")
    return problems


@cache
def load_fields() -> dict:
    """Our fields with their defaults."""
    text = (ROOT / "verl_pipeline/config/one_off_pipeline.yaml").read_text()
    fields: dict = yaml.safe_load(text)["trainer"]["v1"]["one_off_pipeline"]
    return fields


def find_unknown_fields(text: str) -> list[str]:
    """Fields of ours that a document names, in blocks and in its text, and that do not exist."""
    unknown = []
    for match in _FIELD.finditer(text):
        node: object = load_fields()
        for name in match[1].split(".")[1:]:
            if not isinstance(node, dict) or name not in node:
                unknown.append(match[0])
                break
            node = node[name]
    return unknown


def find_broken_python(block: Block) -> str | None:
    """Why a block is no Python; None if it is."""
    try:
        ast.parse(block.text)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    return None
