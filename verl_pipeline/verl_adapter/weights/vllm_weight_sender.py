"""Lets vLLM load received weights in place, instead of copying them into shared memory again.

verl's sender fills a new shared-memory segment at each sync. Ours names the segment in which the
weights lie already, as the network wrote them or as the node stores them, to verl's receiver, which
maps it at the first sync and keeps it.

Invariants:
* Anything but :class:`SegmentWeights` (verl's own modes, other engines) takes verl's way.
* A part is overwritten only after vLLM has loaded it: verl's receiver acknowledges each of them,
  or the sync fails.
* A sync that is cancelled ends soon, and its socket with it.
"""

import asyncio
import time
from typing import Any

import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.segment_weights import SegmentWeights

# Between two looks whether a sync is cancelled while its message waits for an acknowledgement.
POLL_MS = 200


class InPlaceWeightSender(BucketedWeightSender):
    """verl's sender, without the copy of weights that are in shared memory already."""

    _timeout_s = 0.0
    _is_cancelled = False

    async def async_send_weights(self, weights: Any) -> None:
        if not isinstance(weights, SegmentWeights):
            return await super().async_send_weights(weights)
        try:
            self._init_socket()
            self.socket.setsockopt(zmq.LINGER, 0)
            self._timeout_s = weights.timeout_s
            size = weights.memory.numel()
            await self._send_message({"name": weights.segment_name, "size": size})
            weights.note_mapped()
            async for part in weights.receive_parts():
                metadata = {
                    entry.name: {
                        "name": entry.name,
                        "shape": entry.shape,
                        "dtype": entry.dtype,
                        "offset": entry.offset,
                        "handle": None,
                    }
                    for entry in part.entries
                }
                await self._send_message({"bucket_meta": metadata, "is_last": part.is_last})
        finally:
            self._cleanup()

    async def _send_message(self, message: dict) -> None:
        """Send and wait for the acknowledgement, in a thread: meanwhile the next bucket arrives."""
        exchange = asyncio.get_running_loop().run_in_executor(None, self._exchange_message, message)
        try:
            await asyncio.shield(exchange)
        except asyncio.CancelledError:
            self._is_cancelled = True
            # A socket may not be closed under its user.
            await asyncio.gather(exchange, return_exceptions=True)
            raise
        except zmq.Again as error:
            raise WeightSyncError(
                f"vLLM's worker at {self.zmq_handle} did not take weights in "
                f"{self._timeout_s:g} s; its log is in Ray's session folder"
            ) from error

    def _exchange_message(self, message: dict) -> None:
        deadline = time.monotonic() + self._timeout_s
        self._wait_for(zmq.POLLOUT, deadline)  # until vLLM's worker has connected
        self.socket.send_pyobj(message)
        self._wait_for(zmq.POLLIN, deadline)
        self.socket.recv()

    def _wait_for(self, event: int, deadline: float) -> None:
        while not self.socket.poll(POLL_MS, event):
            if self._is_cancelled or time.monotonic() > deadline:
                raise zmq.Again
