"""Answers that need no model: the data's own solutions, no answer at all, or a file's.

The first two check the graders: ``canonical`` must score exactly 100 %, ``empty`` exactly 0 %.

A line of a file holds ``id`` and ``response``, and with several tasks ``task``; several lines of
one problem are its samples, in order.
"""

import collections
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.data import BadData, read_rows
from verl_pipeline.evaluation.engines import EngineError, Failed, Generation, Request
from verl_pipeline.evaluation.task import Sampling


class GivenEngine:
    """Answers without a model.

    Args:
        name: ``canonical``, ``empty``, or the path of a JSONL file.

    Raises:
        EngineError: the file is not readable.
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
                    f"answers of {name}: {error!r}; lines with id and response are needed"
                ) from error

    def identity(self) -> dict[str, Any]:
        path = Path(self.name)
        content = path.read_bytes() if path.is_file() else self.name.encode()
        return {"name": self.name, "weights": None, "answers": hashlib.sha256(content).hexdigest()}

    def settings(self) -> dict[str, Any]:
        return {"kind": "given"}

    def check_lengths(self, requests: Iterable[Request], sampling: Sampling, more: int = 0) -> None:
        if not self._answers:
            return
        asked = {(task, request.id) for request in requests for task in (request.task, None)}
        if not asked & self._answers.keys():
            some = ", ".join(sorted({name for _task, name in asked})[:2])
            raise EngineError(
                f"{self.name}: no answer to any problem of the task; its ids are like {some}"
            )

    def generate(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[Request, Generation | Failed]]:
        for request in requests:
            text = self._answer(request)
            if text is None:
                yield request, Failed(f"{self.name} has no answer {request.sample} to {request.id}")
            else:
                yield request, Generation(text, 0, 0, "stop")

    def _answer(self, request: Request) -> str | None:
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
