"""What a model adds to strengthening: input generators, and samples to tell right from wrong."""

from collections.abc import Sequence
from pathlib import Path

from verl_pipeline.evaluation.data import BadData
from verl_pipeline.evaluation.recorded_files import DamagedFileError, read_records
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.generation.model_answers import ModelAnswers, ModelRequest
from verl_pipeline.recipes.deepcoder.generation.model_prompts import write_generator_request


def ask_for_generators(records: Sequence[ProblemRecord], answers: ModelAnswers) -> dict[str, str]:
    """Return the generator that a model wrote for each problem; empty if it wrote none.

    Problems whose request the server failed are left out, so that their inputs are derived.
    """
    asked = [record for record in records if record.solutions]
    requests = [
        ModelRequest(
            f"inputs {record.id}",
            0,
            write_generator_request(
                record.question, record.solutions[0], record.calls[0] if record.calls else None
            ),
        )
        for record in asked
    ]
    texts = answers.ask(requests)
    return {
        record.id: extract_last_program(text) or ""
        for record, text in zip(asked, texts, strict=True)
        if text is not None
    }


def read_sample_file(path: str | None) -> dict[str, tuple[str, ...]]:
    """Return the distinct programs of ``strengthen.samples`` by problem.

    Raises:
        BadData: there is no such file.
        DamagedFileError: a line has no ``id``, or neither ``program`` nor ``response``.
    """
    programs: dict[str, dict[str, None]] = {}
    if path is None:
        return {}
    if not Path(path).is_file():
        raise BadData(f"strengthen.samples={path}: no such file")
    for number, row in enumerate(read_records(Path(path)), 1):
        text = row.get("program", row.get("response"))
        if not isinstance(row.get("id"), str) or not isinstance(text, str):
            raise DamagedFileError(
                f"{path}:{number}: expected id, and program or response, as texts; correct or "
                "remove the line"
            )
        program = text if "program" in row else extract_last_program(text)
        if program:
            programs.setdefault(row["id"], {})[program] = None
    return {name: tuple(found) for name, found in programs.items()}
