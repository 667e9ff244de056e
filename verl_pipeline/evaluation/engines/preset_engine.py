"""An engine without a model: the data's own solutions, empty answers, or answers from a file.

The first two check the graders: ``canonical`` must score exactly 100 %, ``empty`` exactly 0 %.

Each line of a file has ``id`` and ``response``, and with several tasks ``task``; several lines with
one id are the samples of that problem, in order.
"""

import collections
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.data import BadData, read_rows
from verl_pipeline.evaluation.engines import (
    EngineError,
    FailedRequest,
    Generation,
    RequestCheck,
    SampleRequest,
)
from verl_pipeline.evaluation.task import SamplingParameters


class PresetEngine:
    """Yields preset answers.

    Args:
        name: ``canonical``, ``empty``, or the path of a JSONL file.

    Raises:
        EngineError: the file is unreadable, or a line lacks ``id`` or ``response``.
    """

    def __init__(self, name: str):
        self.name = name
        # A line without a task counts for every task.
        self._answers: dict[tuple[str | None, str], list[str]] = collections.defaultdict(list)
        if name not in ("canonical", "empty"):
            try:
                for row in read_rows(Path(name)):
                    self._answers[row.get("task"), str(row["id"])].append(str(row["response"]))
            except (OSError, BadData, KeyError) as error:
                raise EngineError(
                    f"model={name}: {error!r}; each line must have id and response"
                ) from error

    def describe_model(self) -> dict[str, Any]:
        path = Path(self.name)
        content = path.read_bytes() if path.is_file() else self.name.encode()
        return {"name": self.name, "weights": None, "answers": hashlib.sha256(content).hexdigest()}

    def describe_settings(self) -> dict[str, Any]:
        return {"kind": "given"}

    def check_requests(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters, extra_tokens: int = 0
    ) -> RequestCheck:
        if not self._answers:
            return RequestCheck()
        keys = {(task, request.id) for request in requests for task in (request.task, None)}
        if not keys & self._answers.keys():
            examples = ", ".join(sorted({name for _task, name in keys})[:2])
            raise EngineError(
                f"model={self.name}: no answer to any problem of the task; its ids are like "
                f"{examples}"
            )
        return RequestCheck()

    def generate(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters
    ) -> Iterator[tuple[SampleRequest, Generation | FailedRequest]]:
        for request in requests:
            text = self._find_answer(request)
            if text is None:
                yield (
                    request,
                    FailedRequest(f"{self.name} has no answer {request.sample} to {request.id}"),
                )
            else:
                yield request, Generation(text, 0, 0, "stop")

    def _find_answer(self, request: SampleRequest) -> str | None:
        if self.name == "empty":
            return ""
        if self.name == "canonical":
            return request.canonical
        answers = self._answers.get((request.task, request.id)) or self._answers.get(
            (None, request.id), []
        )
        return answers[request.sample] if request.sample < len(answers) else None

    def close(self) -> None:
        pass
