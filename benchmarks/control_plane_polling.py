"""What it costs to wait for a batch, for :mod:`control_plane_case`.

Invariant: TransferQueue's own functions are back when a measurement ends.
"""

import pickle
import threading
import time
from typing import Any

import numpy as np
import transfer_queue as tq


def measure_polling(buffer: Any, last: str, seconds: float) -> dict[str, float]:
    """Wait for a batch whose last prompt ends after ``seconds``; what the controller works for it.

    Returns:
        ``poll_s``: median time of one question; ``poll_share``: of the wait; ``poll_delay_s``: from
        the end of the batch to its detection; ``poll_bytes``: of all tags.
    """
    client = tq.get_client()
    polls: list[float] = []
    calls = {"kv_list": tq, "kv_retrieve_meta": client}
    originals = {name: getattr(owner, name) for name, owner in calls.items()}

    def time_call(original):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            answer = original(*args, **kwargs)
            polls.append(time.perf_counter() - start)
            return answer

        return timed

    ended: list[float] = []

    def finish_last() -> None:
        time.sleep(seconds)
        put = tq.get_client()
        meta = put.kv_retrieve_meta(keys=[last], partition_id="train")
        meta.update_custom_meta([{"status": "finished"}])
        put.set_custom_meta(meta)
        ended.append(time.perf_counter())

    size = len(pickle.dumps(originals["kv_list"]("train")))
    for name, owner in calls.items():
        setattr(owner, name, time_call(originals[name]))
    thread = threading.Thread(target=finish_last)
    start = time.perf_counter()
    thread.start()
    buffer.wait_until_sampled()
    detected = time.perf_counter()
    thread.join()
    for name, owner in calls.items():
        setattr(owner, name, originals[name])
    return {
        "poll_s": float(np.median(polls)),
        "poll_share": sum(polls) / (detected - start),
        "poll_delay_s": max(detected - ended[0], 0.0),
        "poll_bytes": float(size),
    }
