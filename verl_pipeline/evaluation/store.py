"""The files of an evaluation; samples and verdicts are stored one per line, as they arrive.

    OUTPUT/model.json              the model that the samples belong to
    OUTPUT/<task>/settings.json    data and sampling parameters of the samples
    OUTPUT/<task>/problems.jsonl   prompts
    OUTPUT/<task>/samples.jsonl    responses
    OUTPUT/<task>/verdicts.jsonl   verdicts
    OUTPUT/<task>/failures.jsonl   failed requests; the next call repeats them
    OUTPUT/<task>/behaviours.jsonl what the programs of a problem do on generated inputs

Invariants:
* A folder holds samples of one model, one set of sampling parameters and one version of the data;
  any difference is refused, and the error names it.
* Only complete records count: an unfinished last one is removed before the next one is written.
* A sample is drawn once: stored samples are not requested again.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes this one on Python 3.11

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.differences import is_hash, list_differences
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.outputs.files import JsonLinesFile, Row, write_json
from verl_pipeline.outputs.folders import FolderKind

EVALUATION = FolderKind(
    "verl-pipeline eval",
    landmarks=(".lock", "model.json"),
    written=(
        "model.json",
        "calls.jsonl",
        "results.json",
        "report.html",
        *(
            f"*/{name}"
            for name in (
                "settings.json",
                "problems.jsonl",
                "samples.jsonl",
                "verdicts.jsonl",
                "failures.jsonl",
                "behaviours.jsonl",
            )
        ),
    ),
)
Key = tuple[str, int]
# Field of model.json and settings.json with what their hashes follow from.
EXPLANATION = "explanation"


class _Sample(TypedDict):
    id: str
    sample: int


class _Verdict(_Sample):
    reward: FiniteFloat | None


class _WholeSample(_Sample):
    response: str
    finish: str
    tokens: int
    prompt_tokens: int
    mean_logprob: float | None


class _WholeVerdict(_Verdict):
    verdict: str
    reason: str
    answer: str | None
    shown: bool | None
    tier: str


# What a comparison and the page read of rows of samples.jsonl and of verdicts.jsonl.
SAMPLE, VERDICT = TypeAdapter(_Sample), TypeAdapter(_Verdict)
# What an evaluation reads of them that continues.
_WHOLE_SAMPLE, _WHOLE_VERDICT = TypeAdapter(_WholeSample), TypeAdapter(_WholeVerdict)


class StoreError(UserError):
    """The folder is damaged, or holds samples of another model or other settings."""


def claim_folder(
    path: Path,
    content: Mapping[str, Any],
    folders: Iterable[Path],
    explanation: Mapping[str, Any] | None = None,
) -> None:
    """Record in ``path`` the settings that the samples in ``folders`` belong to.

    Without samples, ``content`` is written. With samples, it must equal the recorded content.

    Args:
        explanation: what the hashes in ``content`` follow from, such as ``limit``; it is recorded
            beside the content and not compared, but names the cause if the content differs.

    Raises:
        StoreError: it differs; the message names each differing field.
    """
    content = json.loads(json.dumps(content))  # tuples become lists, as in the file
    explanation = json.loads(json.dumps(explanation or {}))
    if not any(
        (folder / "samples.jsonl").is_file() and (folder / "samples.jsonl").stat().st_size
        for folder in folders
    ):
        write_json(path, {**content, EXPLANATION: explanation})
        return
    advice = "choose another output, or remove that folder"
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{path.parent} holds samples, but {path.name} is unreadable, so their model and "
            f"settings are unknown ({error}): {advice}"
        ) from error
    # Folders of earlier versions have no explanation.
    explained = before.pop(EXPLANATION, {})
    sides = ("there", "now")
    if list_differences(before, content, sides):
        causes = list_differences(
            explained, {name: explanation.get(name) for name in explained}, sides
        )
        # A hash says nothing more than its causes.
        hashed = {name for name, value in content.items() if causes and is_hash(value)}
        differences = list_differences(
            {name: value for name, value in before.items() if name not in hashed},
            {name: value for name, value in content.items() if name not in hashed},
            sides,
        )
        raise StoreError(
            f"{path.parent} holds samples of another run ({'; '.join([*causes, *differences])}): "
            f"{advice}"
        )


class TaskStore:
    """The stored samples and verdicts of one task.

    Attributes:
        samples: rows of ``samples.jsonl`` by (problem id, sample number).
        verdicts: rows of ``verdicts.jsonl`` that have a reward, by the same key.
    """

    def __init__(self, folder: Path):
        with contextlib.ExitStack() as stack:
            # Opened first, which ends or cuts an unfinished last line.
            self._files = {
                name: stack.enter_context(
                    contextlib.closing(JsonLinesFile(folder / f"{name}.jsonl"))
                )
                for name in ("samples", "verdicts", "failures")
            }
            self.samples = {
                _make_key(row): row for row in read_records(folder / "samples.jsonl", _WHOLE_SAMPLE)
            }
            # Failed gradings are repeated: of several verdicts of a sample the last one counts.
            rows = read_records(folder / "verdicts.jsonl", _WHOLE_VERDICT)
            verdicts = {_make_key(row): row for row in rows}
            self.verdicts = {key: row for key, row in verdicts.items() if row["reward"] is not None}
            self._close = stack.pop_all().close

    def add_sample(self, row: Row) -> None:
        self._files["samples"].append_row(row)
        self.samples[_make_key(row)] = row

    def add_verdict(self, row: Row) -> None:
        self._files["verdicts"].append_row(row)
        if row["reward"] is not None:
            self.verdicts[_make_key(row)] = row

    def add_failure(self, row: Row) -> None:
        self._files["failures"].append_row(row)

    def list_ungraded_samples(self) -> list[Row]:
        """Return the samples that have no verdict with a reward."""
        return [row for key, row in self.samples.items() if key not in self.verdicts]

    def close(self) -> None:
        self._close()


def _make_key(row: Row) -> Key:
    return str(row["id"]), int(row["sample"])
