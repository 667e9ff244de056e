"""verl's vLLM server, which can change weights while requests run and tells who sampled what.

A change: :meth:`VersionedServer.freeze`, a load of weights by verl's own calls
(``update_weights_from_ipc``, ``clear_kv_cache``, ``set_global_steps``),
:meth:`VersionedServer.thaw`.

Invariants:
* Between the two the engine takes no step. Running requests keep their place; requests that come
  meanwhile wait here, and begin with the new weights.
* Every token is counted for the version that sampled it: a freeze ends when the outputs of all
  steps have arrived here.
* A request that comes under a version takes no prefix that an older one computed: the version
  salts its blocks. A reset could not do that, since vLLM refuses it while requests hold blocks.
* Answers carry ``extra_fields["version_spans"]`` (:mod:`verl_pipeline.trainer.version_spans`), the
  lowest and highest of these versions in verl's ``min_global_steps`` and ``max_global_steps``.
  Before the first load, when nobody knows a version, verl's fields stay as they are.
* A load that failed in the engine is told to whoever asks: who sends the weights waits for the
  worker that failed, and would see the error only afterwards.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer
from vllm.v1.engine import EngineCoreOutputs

from verl_pipeline.trainer.replica_speed import Work, WorkMeter
from verl_pipeline.trainer.version_spans import VERSION_SPANS, VersionMark, cut_spans, dump_spans
from verl_pipeline.verl_adapter.telemetry.first_token_server import FirstTokenServer
from verl_pipeline.verl_adapter.weights.weight_extension import EXTENSION

# Between two looks whether vLLM has processed what its engine sent; usually it has.
OUTPUT_POLL_S = 0.001
# verl's call of the engine's workers that receives weights.
RECEIVE = "update_weights_from_ipc"


class VersionedServer(FirstTokenServer, vLLMHttpServer):
    """verl's server with :meth:`freeze` and :meth:`thaw`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # By request of verl's that has no answer yet, where its versions changed.
        self._marks: dict[str, list[VersionMark]] = {}
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._keeps_kv = False
        self._running = 0
        self._last_output = time.monotonic()
        self._meter = WorkMeter()
        self._load_failure: str | None = None

    async def collective_rpc(self, method: Any, *arguments: Any, **named: Any) -> None:
        """verl's; notes the failure of a load."""
        try:
            await super().collective_rpc(method, *arguments, **named)
        except Exception as error:
            if method == RECEIVE:
                self._load_failure = " ".join(str(error).split()) or type(error).__name__
            raise

    async def tell_load_failure(self) -> str | None:
        """What the engine's worker said of a load that failed; None if none did."""
        return self._load_failure

    async def freeze(self, keep_kv: bool) -> int:
        """Stop the engine after its current step.

        Args:
            keep_kv: whether running requests go on with the KV cache that the old weights computed;
                else it is computed anew, with their tokens so far, when they go on.

        Returns:
            How many requests of verl's hold tokens or a place in the engine's queue.
        """
        if self.node_rank != 0:  # the engine is the first node's
            return 0
        self._thawed.clear()
        self._meter.pause(True)
        self._keeps_kv = keep_kv
        # With clear_cache vLLM preempts what runs, so that it is prefilled again, and drops every
        # cached prefix.
        await self.engine.pause_generation(mode="keep", clear_cache=not keep_kv)
        await self._drain_outputs()
        frozen = 0
        for state in self.engine.output_processor.request_states.values():
            marks = self._marks.get(state.external_req_id)
            if marks is not None:
                frozen += 1
                tokens = state.detokenizer.num_output_tokens()
                if self.global_steps is not None:
                    marks.append(VersionMark(self.global_steps, tokens))
        return frozen

    async def thaw(self, version: int) -> None:
        """Go on with the weights ``version``."""
        if self.node_rank != 0:
            return
        await self.set_global_steps(version)
        self._keeps_kv = False
        await self.engine.resume_generation()
        self._last_output = time.monotonic()
        self._meter.pause(False)
        self._thawed.set()

    async def measure_silence(self) -> float:
        """Seconds since the engine last answered one of its requests; 0 while it has none or is
        frozen.
        """
        if not self._running or not self._thawed.is_set():
            return 0.0
        return time.monotonic() - self._last_output

    async def measure_work(self) -> dict[int, Work]:
        """What the engine has done so far, by class of load."""
        return self._meter.read()

    async def note_workers(self) -> list[list]:
        """:func:`~verl_pipeline.run_end.note_processes` of the engine's worker processes, if they
        have our extension.
        """
        engine_kwargs = self.config.engine_kwargs.get("vllm") or {}
        if self.node_rank != 0 or engine_kwargs.get("worker_extension_cls") != EXTENSION:
            return []
        return [
            noted for rank in await self.engine.collective_rpc("note_process") for noted in rank
        ]

    async def clear_kv_cache(self) -> None:
        """verl's call after a load.

        Where running requests keep their blocks, vLLM can reset none, and encoder outputs that a
        prefill still needs must stay: only a KV store outside of vLLM is emptied.
        """
        if self._keeps_kv:
            await self.engine.reset_prefix_cache(reset_connector=True)
        else:
            await super().clear_kv_cache()

    async def generate(  # type: ignore[override]
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        **media: Any,
    ) -> TokenOutput:
        """verl's, with the fields that the module lists."""
        marks = self._marks[request_id] = []
        try:
            output = await super().generate(prompt_ids, sampling_params, request_id, **media)
        finally:
            self._marks.pop(request_id, None)
        if self.global_steps is not None:
            output.extra_fields |= self._describe(marks, len(output.token_ids))
        return output

    def _describe(self, marks: list[VersionMark], tokens: int) -> dict[str, Any]:
        # Nothing has been awaited since the last token came, so its version is still here.
        spans = cut_spans(marks, tokens, self.global_steps)
        versions = [span.version for span in spans] or [self.global_steps]
        return {
            VERSION_SPANS: dump_spans(spans),
            "min_global_steps": min(versions),
            "max_global_steps": max(versions),
        }

    async def _generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **arguments: Any
    ) -> AsyncGenerator[Any]:
        """The engine's, for requests of verl's and for those of its HTTP server."""
        await self._thawed.wait()
        if isinstance(prompt, dict):
            prompt = {**prompt, "cache_salt": f"version {self.global_steps}"}
        outputs = super()._generate(prompt, sampling_params, request_id, **arguments)
        if not self._running:
            self._last_output = time.monotonic()
        self._running += 1
        self._meter.change(1)
        tokens = 0
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    self._last_output = time.monotonic()
                    # verl asks for all tokens so far with each output.
                    before, tokens = tokens, sum(len(one.token_ids) for one in output.outputs)
                    self._meter.sample(max(tokens - before, 0))
                    yield output
        finally:
            self._running -= 1
            self._meter.change(-1)

    async def _drain_outputs(self) -> None:
        """Return when everything that the paused engine has sent is processed.

        vLLM's answer to the pause comes after the last step's outputs, which may still be queued
        for the one task that processes them, in order. It takes the empty one behind them when it
        is done with them; a turn of the event loop later, the callers of finished requests have
        their answers.
        """
        engine = self.engine
        if engine.output_processor.request_states:  # else the task may not have begun
            queue = engine.engine_core.outputs_queue
            queue.put_nowait(EngineCoreOutputs())
            while not queue.empty() and not engine.errored:
                await asyncio.sleep(OUTPUT_POLL_S)
        await asyncio.sleep(OUTPUT_POLL_S)
