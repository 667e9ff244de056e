"""What waiting for a batch costs: the delay until a finished batch is seen, and the load of polling
TransferQueue.

``python -m benchmarks.replay_buffer [--output results.json]``; about three minutes on two cores.

Two sizes, on real Ray and TransferQueue: 4 prompts x 4 trajectories, where the delay matters, and
1024 x 16, where the load matters. verl's own buffer polls every 2 s whatever the size.
"""

import statistics
import threading
import time
from pathlib import Path
from typing import Annotated

import ray
import transfer_queue as tq
import typer
from rich.progress import track

from benchmarks.common import table, write_report
from verl_pipeline.trainer import prompts, replay_buffer
from verl_pipeline.verl_adapter.in_order_replay_buffer import InOrderReplayBuffer

SIZES = ((4, 4), (1024, 16))


def submit(batch: int, count: int, sessions: int) -> list[str]:
    uids = [prompts.make_uid(batch, position) for position in range(count)]
    tags = [
        {"is_prompt": True, "status": "running", "global_steps": batch, "sessions": sessions}
        for _ in uids
    ]
    tq.kv_batch_put(keys=uids, partition_id="train", tags=tags)
    keys = [f"{uid}_{session}_0" for uid in uids for session in range(sessions)]
    row = {
        "status": "success",
        "prompt_len": 100,
        "response_len": 100,
        "seq_len": 200,
        "global_steps": batch,
    }
    tags = [{**row, "min_global_steps": batch - 1, "max_global_steps": batch - 1} for _ in keys]
    for start in range(0, len(keys), 2048):
        tq.kv_batch_put(
            keys=keys[start : start + 2048], partition_id="train", tags=tags[start : start + 2048]
        )
    return uids


def measure(count: int, sessions: int, repeats: int) -> dict:
    """Delay between a batch's end and its being seen, and the share of the wait that is spent
    polling.
    """
    polls: list[float] = []
    original = replay_buffer._tags

    def timed(partition_id):
        start = time.perf_counter()
        tags = original(partition_id)
        polls.append(time.perf_counter() - start)
        return tags

    replay_buffer._tags = timed
    delays, shares = [], []
    buffer = InOrderReplayBuffer(deadline_s=600, watchdog=lambda: None, watch_every_s=600)
    for batch in range(1, repeats + 1):
        uids = submit(batch, count, sessions)
        ended: list[float] = []

        def end(uids=uids, ended=ended):
            # Half a second apart from the start of the wait, and never in step with the polls.
            time.sleep(3.0 + 0.37 * (len(delays) % 5))
            tq.kv_batch_put(
                keys=uids, partition_id="train", tags=[{"status": "finished"} for _ in uids]
            )
            ended.append(time.perf_counter())

        thread = threading.Thread(target=end)
        thread.start()
        polls.clear()
        start = time.perf_counter()
        buffer.drain()
        seen = time.perf_counter()
        thread.join()
        delays.append(max(seen - ended[0], 0.0))
        shares.append(sum(polls) / (seen - start))
        buffer.discard(batch)
    replay_buffer._tags = original
    return {
        "prompts": count,
        "trajectories_per_prompt": sessions,
        "repeats": repeats,
        "delay_s_median": statistics.median(delays),
        "delay_s_max": max(delays),
        "polling_share_of_wait_median": statistics.median(shares),
        "poll_s_median": statistics.median(polls),
    }


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Batches of each size.")] = 10,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path(
        "outputs/replay_buffer.json"
    ),
) -> None:
    """Measure both sizes and report."""
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    try:
        tq.init()
        results = [
            measure(count, sessions, repeats)
            for count, sessions in track(SIZES, description="sizes")
        ]
    finally:
        tq.close()
        ray.shutdown()
    table(results, list(results[0]))
    write_report(output, "replay_buffer", {"repeats": repeats}, results)
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
