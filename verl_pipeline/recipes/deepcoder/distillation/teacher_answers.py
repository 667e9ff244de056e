"""The teacher's answers to the training problems, graded: an evaluation of the teacher.

Invariants:
* The answers are an evaluation (:mod:`verl_pipeline.evaluation`) in ``OUTPUT/teacher``: it resumes,
  keeps each answer with its seed, and refuses the folder of another teacher.
* No answer is handed on that was cut off, even if it passes: it would teach the student not to end.
* A failed request or grading is no wrong answer: it is counted, and the next call repeats it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.eval_settings import EvalConfig, ResponseGraderConfig, SamplingConfig
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.recipes.deepcoder.distillation.distill_config import DistillConfig
from verl_pipeline.recipes.deepcoder.distillation.evaluation_process import evaluate

TASK = "parquet"


@dataclass(frozen=True)
class Answer:
    """A right and complete answer; ``tokens`` are those that the teacher generated."""

    problem: str
    sample: int
    response: str
    tokens: int


@dataclass(frozen=True)
class TeacherAnswers:
    """What a teacher answered.

    Attributes:
        right: the right and complete answers, in order.
        counts: ``problems``, ``answers``, ``right``, ``cut_off`` of the right ones and ``trimmed``
            of those, ``missing``: not generated or not graded, and generated ``tokens``.
        model: the teacher's name and the hash of its weights.
    """

    right: list[Answer]
    counts: dict[str, int]
    model: dict[str, Any]


def build_evaluation(
    config: DistillConfig, model: str, file: Path, output: Path, *, is_teacher: bool
) -> EvalConfig:
    """Return the evaluation of ``model`` on the problems of ``file``."""
    teacher, score = config.teacher, config.score
    n, temperature, top_p = (
        (teacher.k, teacher.temperature, teacher.top_p)
        if is_teacher
        else (score.n, score.temperature, 1.0)
    )
    options = {"file": str(file)} | ({"source": config.source} if config.source else {})
    return EvalConfig(
        model=model,
        tasks=[TASK],
        output=str(output),
        sampling=SamplingConfig(n, temperature, top_p, -1, config.max_tokens, config.seed),
        engine=teacher.engine if is_teacher else score.engine,
        grader=ResponseGraderConfig(**asdict(config.grader)),
        options={TASK: options},
    )


def collect_answers(config: DistillConfig, output: Path, console: Console) -> TeacherAnswers:
    """Let the teacher answer what it has not answered yet; return its right answers.

    Raises:
        UserError: the teacher, the data or the folder cannot be used.
    """
    folder, file = output / "teacher", Path(config.data) / "train.parquet"
    evaluation = build_evaluation(config, config.teacher.model, file, folder, is_teacher=True)
    results = evaluate(evaluation, console)
    [task] = results["tasks"]
    expected, is_trimmed = task["counts"]["expected"], config.selection.cut_off == "trim"
    return read_answers(folder / TASK, expected, config.teacher.k, results, is_trimmed)


def read_answers(
    folder: Path, expected: int, k: int, results: dict[str, Any], is_trimmed: bool = False
) -> TeacherAnswers:
    """Return the right answers among the first k of each problem."""
    # The last verdict of an answer counts: one whose grading failed is graded again.
    rewards = {
        (row["id"], row["sample"]): row["reward"] for row in read_records(folder / "verdicts.jsonl")
    }
    rows = [row for row in read_records(folder / "samples.jsonl") if row["sample"] < k]
    graded = [row for row in rows if rewards.get((row["id"], row["sample"])) is not None]
    right = [row for row in graded if rewards[row["id"], row["sample"]] == 1.0]
    complete = [row for row in right if row["finish"] == "stop"]
    cut_off = [row for row in right if row["finish"] != "stop"]
    trimmed = [
        row | {"response": text}
        for row in (cut_off if is_trimmed else ())
        if (text := trim_answer(row["response"])) is not None
    ]
    answers = sorted(
        (
            Answer(row["id"], row["sample"], row["response"], row["tokens"])
            for row in (*complete, *trimmed)
        ),
        key=lambda answer: (answer.problem, answer.sample),
    )
    counts = {
        "problems": len({row["id"] for row in rows}),
        "answers": len(rows),
        "right": len(right),
        "cut_off": len(cut_off),
        "trimmed": len(trimmed),
        "missing": expected - len(graded),
        "tokens": sum(row["tokens"] for row in rows),
    }
    return TeacherAnswers(answers, counts, results["model"])


def trim_answer(response: str) -> str | None:
    """Return a response up to the end of its program's block; None if that has another program."""
    program = extract_last_program(response)
    begin = response.rfind(program.strip()) if program else -1
    if program is None or begin < 0:
        return None
    end = response.find("```", begin + len(program.strip()))
    trimmed = response[: end + 3]
    return trimmed if end >= 0 and extract_last_program(trimmed) == program else None
