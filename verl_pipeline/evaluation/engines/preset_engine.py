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

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.data import BadData, read_rows
from verl_pipeline.evaluation.engines import (
    EngineError,
    FailedRequest,
    Generation,
    RequestCheck,
    SampleRequest,
)
from verl_pipeline.evaluation.task import SamplingParameters

# Ids that a caveat names.
SHOWN_IDS = 5


class PresetEngine:
    """Yields preset answers.

    Args:
        name: ``canonical``, ``empty``, or the path of a JSONL file.

    Raises:
        EngineError: the file is unreadable or empty, or a row lacks ``id`` or ``response``.
    """

    def __init__(self, name: str):
        self.name = name
        # A line without a task counts for every task.
        self._answers: dict[tuple[str | None, str], list[str]] = collections.defaultdict(list)
        if name not in ("canonical", "empty"):
            try:
                for number, row in enumerate(read_rows(Path(name)), 1):
                    if "id" not in row or not isinstance(row.get("response"), str):
                        raise EngineError(
                            f"model={name}:{number}: each row must have an id and a response "
                            f"(text); it has {', '.join(row) or 'nothing'}"
                        )
                    if not isinstance(row.get("task"), str | None):
                        raise EngineError(
                            f"model={name}:{number}: task must be the name of a task, or left out"
                        )
                    self._answers[row.get("task"), str(row["id"])].append(row["response"])
            except BadData as error:
                raise EngineError(f"model={error}") from error
            if not self._answers:
                raise EngineError(f"model={name}: no answer in the file")

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
        asked = list(requests)
        counts = {request.id: len(self._list_answers(request)) for request in asked}
        task = asked[0].task
        if not any(counts.values()):
            examples = ", ".join(sorted(counts)[:2])
            own = ", ".join([name for _task, name in self._answers][:2])
            raise EngineError(
                f"model={self.name}: no answer to any problem of {task}; its ids are like "
                f"{examples}, those of the file like {own}"
            )
        offered = [name for of_task, name in self._answers if of_task in (task, None)]
        findings = (
            (
                [name for name, count in counts.items() if count < sampling.n],
                f"problems have fewer answers than n={sampling.n}, and the missing ones fail",
            ),
            (
                [name for name, count in counts.items() if count > sampling.n],
                f"problems have more answers than n={sampling.n}, and the last ones are left out",
            ),
            (
                [name for name in offered if name not in counts],
                "ids of the file are of no evaluated problem, and their answers are left out",
            ),
        )
        return RequestCheck(
            caveats=tuple(
                Caveat("unmatched_answers", f"{self.name}: {_count_names(names)} {text}")
                for names, text in findings
                if names
            )
        )

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
        answers = self._list_answers(request)
        return answers[request.sample] if request.sample < len(answers) else None

    def _list_answers(self, request: SampleRequest) -> list[str]:
        return self._answers.get((request.task, request.id)) or self._answers.get(
            (None, request.id), []
        )

    def close(self) -> None:
        pass


def _count_names(names: list[str]) -> str:
    """Return the number of names with the first ones, as ``3 (a, b, ...)``."""
    shown = names[:SHOWN_IDS]
    return f"{len(names)} ({', '.join([*shown, *['...'] * (len(names) > len(shown))])})"
