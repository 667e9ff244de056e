"""The rollout server of an emulated run: one Ray actor with the calls that verl makes of vLLM's.

It stands for all replicas of the pool. verl's load balancer sees each of them
(:mod:`.router`), the rest of verl the server.

Invariants:
* Where verl's server aborts, this one answers with the tokens so far; where it waits, this waits.
* An answer holds a token for each ``token_factor`` emulated ones, and names its sample.
"""

import asyncio
from typing import Any

import ray
from aiohttp import web
from transformers import AutoTokenizer
from verl.workers.rollout.replica import TokenOutput

from verl_pipeline.emulated.ahead_pool import AheadPool
from verl_pipeline.emulated.flowing_pool import FlowingPool
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica_pool import Answer, ReplicaPool
from verl_pipeline.trainer.version_spans import VERSION_SPANS, VersionMark, cut_spans, dump_spans
from verl_pipeline.verl_adapter.emulated.plugin import load_run, read_alphabet

# What a sampled token's log-prob is; the trainer's is the same.
LOG_PROB = -1.0
DRAIN_POLL_S = 0.01
# The fewest tokens that name a sample.
NAME_TOKENS = 2


class EmulatedServer:
    """The server; Ray calls its methods on one event loop.

    Args:
        model: folder of the stand-in model.
    """

    def __init__(self, model: str) -> None:
        self._run = load_run()
        self._alphabet = read_alphabet(AutoTokenizer.from_pretrained(model))
        journal = Journal(self._run.journal, "rollout")
        pool: type[ReplicaPool] = AheadPool if self._run.ahead else ReplicaPool
        if self._run.flows:
            pool = FlowingPool
        self._pool = pool(self._run, self._run.open_clock(), journal)
        self._version: int | None = None
        # Of trajectories, the tokens that were returned so far.
        self._returned: dict[tuple[int, int], int] = {}

    async def start(self) -> str:
        """Serve the pages that health checks and gauges read; returns ``host:port``."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self._tell_models),
                # The replicas' names, which are in their addresses (:mod:`.router`).
                web.get("/{replica:[0-9]+}/metrics", self._tell_gauges),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host = ray.util.get_node_ip_address()
        await web.TCPSite(runner, host, 0).start()
        return f"{host}:{runner.addresses[0][1]}"

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        replica: int = 0,
        **_media: Any,
    ) -> TokenOutput:
        """verl's call, for one of the replicas."""
        answer = await self._pool.generate(replica, *self._alphabet.read_prompt(prompt_ids))
        trajectory = answer.row, answer.sample
        whole = self._run.compress(answer.tokens)
        end = self._run.compress(answer.done)
        if answer.is_aborted:  # something is left for later
            end = max(NAME_TOKENS, min(end, whole - 1))
        begin = self._returned.get(trajectory, 0)
        self._returned[trajectory] = end
        tokens = self._alphabet.make_response(answer.sample, end)[begin:]
        return TokenOutput(
            token_ids=tokens,
            log_probs=[LOG_PROB] * len(tokens) if sampling_params.get("logprobs") else None,
            stop_reason="aborted" if answer.is_aborted else "completed",
            num_preempted=0,
            extra_fields={"num_cached_tokens": 0, **self._tell_versions(replica, answer, end)},
        )

    def _tell_versions(self, replica: int, answer: Answer, tokens: int) -> dict[str, Any]:
        pool = self._pool
        if not isinstance(pool, FlowingPool):
            return {"global_steps": self._version}
        version = pool.versions[replica]
        assert version is not None, "a trajectory begins with weights"
        # Of few tokens, two changes may fall on one.
        marks = [
            VersionMark(old, min(self._run.compress(done), tokens)) for old, done in answer.marks
        ]
        spans = dump_spans(cut_spans(marks, tokens, version))
        return {"global_steps": version, VERSION_SPANS: spans}

    async def load_weights(self, replica: int, version: int) -> None:
        """Let one of the replicas take published weights."""
        assert isinstance(self._pool, FlowingPool)
        await self._pool.load(replica, version)

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """Answer all requests, and keep new ones waiting until generation is resumed."""
        return {"aborted_count": self._pool.abort_all(), "request_ids": []}

    async def resume_generation(self) -> None:
        """Let requests begin again."""
        self._pool.open()

    async def sleep(self) -> None:
        """Give the devices back: what runs is finished first, as verl's server does."""
        while self._pool.running or self._pool.waiting:
            await asyncio.sleep(DRAIN_POLL_S)
        self._pool.pause()

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Take the devices again."""
        self._pool.open()

    async def take_weights(self, version: int | None, wakes: bool) -> None:
        """Other weights have been loaded.

        Args:
            wakes: whether the pool slept until they came (colocated modes).
        """
        self._version = version
        if wakes:
            self._pool.open()

    async def clear_kv_cache(self) -> None:
        """Nothing is cached between requests."""

    async def release_kv_cache(self) -> None:
        """Nothing runs: verl aborts before."""

    async def resume_kv_cache(self) -> None:
        """See :meth:`release_kv_cache`."""

    async def start_profile(self, **_kwargs: Any) -> None:
        """There is nothing to profile."""

    async def stop_profile(self) -> None:
        """See :meth:`start_profile`."""

    async def _tell_models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "emulated"}]})

    async def _tell_gauges(self, request: web.Request) -> web.Response:
        place = int(request.match_info["replica"])
        replica = self._pool.replicas[place]
        gauges = {
            "num_requests_running": replica.running,
            "num_requests_waiting": replica.waiting,
            "generation_tokens_total": self._pool.decoded_tokens[place],
        }
        return web.Response(
            text="".join(f"vllm:{name} {value}\n" for name, value in gauges.items())
        )
