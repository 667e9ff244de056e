"""Candidates from the CodeI/O corpus in reasoning-gym (Apache-2.0): reference, input generator.

A row has a task, a description of input and output, a program with ``main_solution`` and a function
``generate_inputs(rng)``; a model wrote them from code (Li et al. 2025). The package's own data set
only asks for one input or output; here they become problems with tests.

Invariant: a row that cannot become a candidate is rejected with the reason, none is left out.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.data import DataFinder, DataNotFound, PackageFile
from verl_pipeline.grading.problem import find_syntax_error
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.recipes.deepcoder.data.row_files import read_numbered_rows
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import CodeioConfig

ENTRY = "main_solution"
_PACKAGE = PackageFile("reasoning-gym", "reasoning_gym", "data/codeio.jsonl.gz")
_FIELDS = ("task_description", "input_output_spec", "code_sample", "input_generator")
_STDIN_NOTE = (
    "Read the input from standard input: one line for each of {names}, in this order, with its "
    "value as JSON. Print the result as one line of JSON, with the keys of objects in sorted order "
    "(as `json.dumps(result, sort_keys=True)` does)."
)
_CALL_NOTE = "Write a function `{entry}({names})` that returns the result."
_STDIN_MAIN = """

if __name__ == "__main__":
    import json
    import sys
    print(json.dumps({entry}(*map(json.loads, sys.stdin.read().splitlines())), sort_keys=True))
"""


def locate_corpus(config: CodeioConfig, finder: DataFinder) -> tuple[Path, str]:
    """Return the corpus's file and its origin.

    Raises:
        DataNotFound: it is nowhere; the message says how to get it.
    """
    if config.file is not None:
        if not Path(config.file).is_file():
            raise DataNotFound(f"codeio.file={config.file}: no such file")
        return Path(config.file), config.file
    try:
        files, origin = finder.find_files(("codeio",), _PACKAGE)
    except DataNotFound as error:
        raise DataNotFound(
            f"codeio: {error}; the package is read, never imported, so that pip install --no-deps "
            "reasoning-gym==0.1.25 is enough"
        ) from error
    return files[0], origin


def read_corpus(path: Path, config: CodeioConfig) -> Iterator[tuple[str, Candidate | Rejection]]:
    """Yield the id of each row with its candidate, or with the reason why there is none."""
    for number, row in read_numbered_rows(path):
        if config.limit is not None and number > config.limit:
            return
        row_id = str(number)
        try:
            if isinstance(row, BadRow):
                raise Rejection("broken corpus row", str(row))
            yield row_id, make_candidate(row_id, row, config.form)
        except Rejection as rejection:
            yield row_id, rejection


def make_candidate(row_id: str, row: Mapping[str, Any], form: str) -> Candidate:
    """Make the candidate of a row.

    Args:
        form: as :attr:`CodeioConfig.form`.

    Raises:
        Rejection: the row lacks something, or the program needs what the sandbox lacks.
    """
    for name in _FIELDS:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise Rejection("broken corpus row", f"no {name}")
    task, spec, program, generator = (row[name].strip() for name in _FIELDS)
    if error := find_syntax_error(program) or find_syntax_error(generator):
        raise Rejection("the corpus row is not valid Python", error)
    tree = ast.parse(f"{program}\n{generator}")
    if packages := sorted(_list_packages(tree)):
        raise Rejection("needs a package", ", ".join(packages))
    parameters, optional = _read_parameters(tree)
    is_stdin = form == "stdin" or (form == "mixed" and _hash_text(program) % 4 == 0)
    names = ", ".join(parameters)
    note = _STDIN_NOTE if is_stdin else _CALL_NOTE
    return Candidate(
        id=row_id,
        question=f"{task}\n\n{spec}\n\n{note.format(entry=ENTRY, names=names)}",
        program=program,
        generator=f"{program}\n\n{generator}",
        entry_point=ENTRY,
        stdin_main=_STDIN_MAIN.format(entry=ENTRY) if is_stdin else "",
        parameters=parameters,
        optional=optional,
        may_round=True,
        difficulty=f"codeio {row['difficulty']}" if row.get("difficulty") else "",
        notes={"method": "codeio"},
    )


def _list_packages(tree: ast.Module) -> set[str]:
    """Return what the program imports beyond the standard library."""
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    return imported - sys.stdlib_module_names


def _read_parameters(tree: ast.Module) -> tuple[tuple[str, ...], int]:
    """Return the parameters of the entry point, and how many of the last have default values.

    Raises:
        Rejection: there is no such function, or it takes other arguments than named ones.
    """
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name in (ENTRY, "generate_inputs"):
        if name not in functions:
            raise Rejection("a function is missing", name)
    arguments = functions[ENTRY].args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        raise Rejection("takes variable arguments", ast.unparse(arguments))
    parameters = tuple(one.arg for one in (*arguments.posonlyargs, *arguments.args))
    if not parameters:
        raise Rejection("takes no arguments", ENTRY)
    return parameters, len(arguments.defaults)


def _hash_text(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:4])
