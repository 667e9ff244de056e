"""Hands received weights to vLLM where they lie, instead of copying them into shared memory once
more.

verl's sender fills a new shared-memory segment at each sync; here the segment that the network
wrote into is named to verl's receiver, which maps it at the first sync and keeps it.

Invariants:
* Anything but :class:`ReceivedWeights` (verl's own modes, other engines) goes verl's way.
* A bucket is not overwritten before vLLM has loaded it: verl's receiver acknowledges each, or the
  sync fails.
"""

import asyncio
from typing import Any

import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

from verl_pipeline.weight_sync.gloo import ReceivedWeights
from verl_pipeline.weight_sync.wire import WeightSyncError


class InPlaceWeightSender(BucketedWeightSender):
    """verl's sender, which does not copy what lies in shared memory already."""

    async def async_send_weights(self, weights: Any) -> None:
        if not isinstance(weights, ReceivedWeights):
            return await super().async_send_weights(weights)
        try:
            self._init_socket()
            # Also sending waits, for as long as vLLM's worker has not connected.
            timeout_ms = round(weights.timeout_s * 1000)
            for option, value in (
                (zmq.SNDTIMEO, timeout_ms),
                (zmq.RCVTIMEO, timeout_ms),
                (zmq.LINGER, 0),
            ):
                self.socket.setsockopt(option, value)
            segment = weights.segment
            size = segment.memory.numel()
            await self._ask({"name": segment.name, "size": size})
            segment.forget_name()  # it is mapped now
            async for bucket, which in weights.buckets():
                start = which * size // 2
                metadata = {
                    entry.name: {
                        "name": entry.name,
                        "shape": entry.shape,
                        "dtype": entry.dtype,
                        "offset": start + entry.offset,
                        "handle": None,
                    }
                    for entry in bucket.entries
                }
                await self._ask({"bucket_meta": metadata, "is_last": bucket.is_last})
        finally:
            self._cleanup()

    async def _ask(self, message: dict) -> None:
        """Send and wait for the acknowledgement, in a thread: the next bucket is received
        meanwhile.
        """
        try:
            await asyncio.to_thread(self._exchange, message)
        except zmq.Again as error:
            raise WeightSyncError(
                f"vLLM's worker at {self.zmq_handle} did not take weights in "
                f"{self.socket.getsockopt(zmq.RCVTIMEO) / 1000:g} s; its log is in Ray's session "
                "folder"
            ) from error

    def _exchange(self, message: dict) -> None:
        self.socket.send_pyobj(message)
        self.socket.recv()
