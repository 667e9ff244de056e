"""Measures the cost of waiting for a batch: detection delay and polling load on TransferQueue.

``python -m benchmarks.replay_buffer [--output results.json]``; about three minutes on two cores.

Two sizes, with real Ray and TransferQueue: 4 prompts x 4 trajectories, where the delay matters, and
1024 x 16, where the load matters. verl's own buffer polls every 2 s at any size.
"""

import statistics
import threading
import time
from pathlib import Path
from typing import Annotated
from unittest import mock

import ray
import transfer_queue as tq
import typer
from rich.progress import track

from benchmarks.common import ReportOption, print_table, write_report
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.trainer.trajectory_keys import make_prompt_key
from verl_pipeline.verl_adapter.trajectories import in_order_replay_buffer
from verl_pipeline.verl_adapter.trajectories.in_order_replay_buffer import InOrderReplayBuffer
from verl_pipeline.verl_adapter.trajectories.trajectory_store import list_tags

SIZES = ((4, 4), (1024, 16))


def submit_batch(batch: int, count: int, sessions: int) -> list[str]:
    """Put running prompts with their trajectories into TransferQueue; return the prompts' uids."""
    uids = [make_prompt_key(batch, position) for position in range(count)]
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


def measure_size(count: int, sessions: int, repeats: int) -> dict:
    """Measure batches of one size.

    Returns:
        The delay between the end of a batch and its detection, in seconds, and the share of the
        wait that is spent polling.
    """
    poll_times: list[float] = []

    def list_tags_timed(partition_id: str) -> dict[str, dict]:
        start = time.perf_counter()
        tags = list_tags(partition_id)
        poll_times.append(time.perf_counter() - start)
        return tags

    wait_until_quiet()
    delays: list[float] = []
    shares: list[float] = []
    buffer = InOrderReplayBuffer(deadline_s=600, watchdog=lambda: None, watch_every_s=600)
    for batch in range(1, repeats + 1):
        uids = submit_batch(batch, count, sessions)
        end_times: list[float] = []

        def finish_batch(uids=uids, end_times=end_times):
            # The delay varies from batch to batch, so that it does not align with the polls.
            time.sleep(3.0 + 0.37 * (len(delays) % 5))
            tq.kv_batch_put(
                keys=uids, partition_id="train", tags=[{"status": "finished"} for _ in uids]
            )
            end_times.append(time.perf_counter())

        thread = threading.Thread(target=finish_batch)
        thread.start()
        poll_times.clear()
        start = time.perf_counter()
        with mock.patch.object(in_order_replay_buffer, "list_tags", list_tags_timed):
            buffer.wait_until_sampled()
        detected = time.perf_counter()
        thread.join()
        delays.append(max(detected - end_times[0], 0.0))
        shares.append(sum(poll_times) / (detected - start))
        tq.kv_clear(keys=list(tq.kv_list("train")["train"]), partition_id="train")
    return {
        "prompts": count,
        "trajectories_per_prompt": sessions,
        "repeats": repeats,
        "delay_s_median": statistics.median(delays),
        "delay_s_max": max(delays),
        "polling_share_of_wait_median": statistics.median(shares),
        "poll_s_median": statistics.median(poll_times),
    }


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Batches of each size.")] = 10,
    output: ReportOption = Path("outputs/replay_buffer.json"),
) -> None:
    """Measure both sizes, print the results, and write the report."""
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    try:
        tq.init()
        results = [
            measure_size(count, sessions, repeats)
            for count, sessions in track(SIZES, description="sizes")
        ]
    finally:
        tq.close()
        ray.shutdown()
    print_table(results, list(results[0]))
    write_report(output, "replay_buffer", {"repeats": repeats}, results)
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
