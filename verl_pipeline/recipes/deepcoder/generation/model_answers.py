"""Answers of a model, asked for once and stored: ``WORK/answers.jsonl``, one line an answer.

Invariants:
* An answer is stored under the hash of model, sampling parameters, seed and prompt, so a rerun
  with the same settings asks only for what is missing, and needs no server if nothing is.
* A request that failed is asked again in later rounds and calls; it never counts as an answer.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from verl_pipeline.evaluation.engines import Engine, FailedRequest, SampleRequest
from verl_pipeline.evaluation.eval_settings import EvalConfig
from verl_pipeline.evaluation.evaluation_run import make_engine
from verl_pipeline.evaluation.task import Message, SamplingParameters
from verl_pipeline.outputs.files import JsonLinesFile
from verl_pipeline.recipes.deepcoder.generation.generation_config import ModelConfig

_TASK = "generate"


@dataclass(frozen=True)
class ModelRequest:
    """A request for one answer.

    Attributes:
        id: what it is for.
        sample: number of the sample, from 0.
        messages: the conversation.
    """

    id: str
    sample: int
    messages: tuple[Message, ...]


class ModelAnswers:
    """The stored answers of one model.

    Args:
        model: name of the model.
        config: its settings.
        seed: the seeds of the samples are derived from it.
        store: file of answers.

    Attributes:
        failures: reasons of the requests that failed in all rounds, with their numbers.
    """

    def __init__(self, model: str, config: ModelConfig, seed: int, store: Path):
        self._model, self._config, self._store = model, config, store
        self._sampling = SamplingParameters(
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            seed=seed,
        )
        self.failures: Counter[str] = Counter()

    def ask(self, requests: Sequence[ModelRequest]) -> list[str | None]:
        """Return the answer to each request; None where the server failed to give one.

        Raises:
            EngineError: the server or the model cannot be used.
        """
        keys = [self._compute_key(request) for request in requests]
        with closing(JsonLinesFile(self._store)) as file:
            answers = {row["key"]: row["answer"] for row in file.read_rows()}
            missing = {
                key: request
                for key, request in zip(keys, requests, strict=True)
                if key not in answers
            }
            if missing:
                engine = make_engine(EvalConfig(model=self._model, engine=self._config.engine))
                try:
                    answers |= self._ask_missing(engine, missing, file)
                finally:
                    engine.close()
        return [answers.get(key) for key in keys]

    def _ask_missing(
        self, engine: Engine, missing: dict[str, ModelRequest], file: JsonLinesFile
    ) -> dict[str, str]:
        answers: dict[str, str] = {}
        failures: dict[str, str] = {}
        samples = [
            SampleRequest(
                _TASK,
                request.id,
                request.sample,
                self._sampling.derive_seed(request.id, request.sample),
                request.messages,
            )
            for request in missing.values()
        ]
        keys = {(request.id, request.sample): key for key, request in missing.items()}
        engine.check_requests(samples, self._sampling)
        for _round in range(self._config.rounds):
            waiting = [one for one in samples if keys[one.id, one.sample] not in answers]
            if not waiting:
                break
            for sample, result in engine.generate(waiting, self._sampling):
                key = keys[sample.id, sample.sample]
                if isinstance(result, FailedRequest):
                    failures[key] = result.reason
                    continue
                answers[key] = result.response
                file.append_row({"key": key, "id": sample.id, "answer": result.response})
        self.failures.update(reason for key, reason in failures.items() if key not in answers)
        return answers

    def _compute_key(self, request: ModelRequest) -> str:
        config = self._config
        content = [
            self._model,
            [config.temperature, config.top_p, config.max_tokens, self._sampling.seed],
            config.engine.chat_template_kwargs,
            [request.id, request.sample],
            [dict(message) for message in request.messages],
        ]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
