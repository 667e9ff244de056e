"""Votes of programs by what they do: programs that answer alike on generated inputs vote together.

S* (Li et al. 2025, arXiv 2502.14382) chooses between programs by running them on distinguishing
inputs. Here the inputs come from the prompt (:mod:`.distinguishing_inputs`), not from a model, and
the outputs are votes: no model judges them.

Invariants:
* No hidden test and no expected output has a part in a vote.
* An input counts only if some program ends on it, and if the programs differ on it.
* A program that ends on no input has no vote, nor has one that fails the examples in the prompt.
* Behaviours are stored problem by problem; a later call reuses those of the same programs and
  inputs. A failure of the sandbox is no behaviour: the next call runs the problem again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from rich.console import Console

from verl_pipeline.evaluation.distinguishing_inputs import find_entry_point, make_inputs
from verl_pipeline.evaluation.eval_settings import BehaviourConfig
from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.score_tables import print_line
from verl_pipeline.evaluation.store import Row
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.sandbox import SandboxError

# Field of a graded sample: what its program does, or None if it has no vote.
BEHAVIOUR = "behaviour"
FILE_NAME = "behaviours.jsonl"


def has_behaviours(graded: GradedSamples) -> bool:
    """Whether the behaviour of every sample is known, and some sample has a vote by it."""
    rows = [row for problem_rows in graded.values() for row in problem_rows]
    return all(BEHAVIOUR in row for row in rows) and any(row[BEHAVIOUR] for row in rows)


def add_behaviours(
    graded: GradedSamples,
    items: Iterable[TaskItem],
    config: BehaviourConfig,
    grader: Grader,
    folder: Path,
    console: Console,
) -> dict[str, int]:
    """Give each sample of programs its behaviour; other samples vote by their answers.

    Returns:
        ``problems`` with programs, those with a ``distinguished`` pair, ``inputs`` on which
        programs differ, and problems that ``failed``.
    """
    counts = {"problems": 0, "distinguished": 0, "inputs": 0, "failed": 0}
    with closing(JsonLinesFile(folder / FILE_NAME)) as file:
        known = {(row["id"], row["digest"]): row for row in file.read_rows()}
        work = [(item, graded[item.id]) for item in items if item.id in graded]

        def observe(pair: tuple[TaskItem, list[Row]]) -> Row | SandboxError | None:
            return _observe_problem(*pair, config, grader, known)

        with ThreadPoolExecutor(grader.workers) as threads:
            for (item, rows), seen in zip(work, threads.map(observe, work), strict=True):
                if seen is None:
                    for row in rows:
                        row[BEHAVIOUR] = row["answer"]
                    continue
                counts["problems"] += 1
                if isinstance(seen, SandboxError):
                    counts["failed"] += 1
                    print_line(console, f"{item.id}: no votes by behaviour: {seen}", "red")
                    continue
                if (item.id, seen["digest"]) not in known:
                    file.append_row(seen)
                counts["inputs"] += seen["inputs"]
                counts["distinguished"] += seen["inputs"] > 0
                for row in rows:
                    row[BEHAVIOUR] = seen["behaviours"][str(row["sample"])]
    return counts


def _observe_problem(
    item: TaskItem,
    rows: Sequence[Row],
    config: BehaviourConfig,
    grader: Grader,
    known: Mapping[tuple[str, str], Row],
) -> Row | SandboxError | None:
    """Return the row of ``behaviours.jsonl`` of a problem; None if it has no programs."""
    if item.problem is None or item.reward is not None:
        return None
    programs = {
        row["sample"]: extract_last_program(row["response"])
        for row in rows
        if row["shown"] is not False
    }
    sources = sorted({program for program in programs.values() if program is not None})
    inputs = make_inputs(item, sources, config.inputs)
    text = repr((sources, inputs, config.cpu_s, item.problem.prelude, sorted(programs.items())))
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    if (item.id, digest) in known:
        return known[item.id, digest]
    entry_point = find_entry_point(item)
    try:
        outputs = {
            source: grader.run_program(item.problem, source, entry_point, inputs, config.cpu_s)
            for source in sources
        }
    except SandboxError as error:
        return error
    differing, keys = compare_outputs(outputs)
    samples = {str(row["sample"]): keys.get(programs.get(row["sample"]) or "") for row in rows}
    return {"id": item.id, "digest": digest, "inputs": differing, "behaviours": samples}


def compare_outputs(
    outputs: Mapping[str, Sequence[str | None]],
) -> tuple[int, dict[str, str | None]]:
    """Return the number of distinguishing inputs, and a digest of what each program does on them.

    Args:
        outputs: by program, its output on each input; None where it fails.

    Returns:
        The digest is None for a program that fails on every input.
    """
    columns = list(zip(*outputs.values(), strict=True))
    differing = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    keys = {}
    for program, answers in outputs.items():
        text = json.dumps([answers[place] for place in differing])
        ends = any(answer is not None for answer in answers)
        keys[program] = hashlib.sha256(text.encode()).hexdigest()[:16] if ends else None
    return len(differing), keys
