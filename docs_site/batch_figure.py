"""``python -m docs_site.batch_figure > docs/life-of-a-batch.svg``: one batch, from hop to hop.

Invariants:
* File and function of a hop exist, and the page names them in this order
  (``tests/unit/packaging/test_life_of_a_batch.py``).
* The figure has a ground of its own, so it can be read on light and dark pages; it is narrow enough
  for a phone, and grows with the page.
"""

from dataclasses import dataclass
from html import escape

LANES = ("ranks", "driver", "queue", "loops", "replicas", "rewards")
RANKS, DRIVER, QUEUE, LOOPS, REPLICAS, REWARDS = range(len(LANES))
_ADAPTER = "verl_adapter"


@dataclass(frozen=True)
class Hop:
    """A step of a batch.

    Attributes:
        begin, end: lanes; equal where nobody else is called.
        label: what the figure says.
        path: file below ``verl_pipeline/``.
        function: in it, methods with their class.
    """

    begin: int
    end: int
    label: str
    path: str
    function: str


HOPS = (
    Hop(DRIVER, DRIVER, "the schedule decides", "trainer/schedule.py", "run_step"),
    Hop(DRIVER, DRIVER, "take the next prompts", f"{_ADAPTER}/trainers/pipelined_trainer.py",
        "OneOffPipelineTrainer.submit_batch"),
    Hop(DRIVER, QUEUE, "announce them", f"{_ADAPTER}/trajectories/trajectory_store.py",
        "put_prompts"),
    Hop(DRIVER, LOOPS, "hand them out", f"{_ADAPTER}/rollout/loop_succession.py",
        "LoopSuccession.submit"),
    Hop(LOOPS, REPLICAS, "wait for a place", f"{_ADAPTER}/rollout/place_exchange.py",
        "PlaceExchange.begin"),
    Hop(LOOPS, REPLICAS, "sample, turn by turn", f"{_ADAPTER}/rollout/llm_client.py",
        "TurnBudgetClient.generate"),
    Hop(LOOPS, REWARDS, "ask for the reward", f"{_ADAPTER}/rollout/agent_loop.py",
        "PipelineAgentLoopWorker.request_reward"),
    Hop(REWARDS, LOOPS, "check it", f"{_ADAPTER}/rewards/reward_check.py",
        "RewardCheckingWorker._compute_score"),
    Hop(LOOPS, QUEUE, "store the trajectory", f"{_ADAPTER}/rewards/reward_check.py",
        "RewardCheckingWorker._agent_loop_postprocess"),
    Hop(QUEUE, DRIVER, "collect the whole batch",
        f"{_ADAPTER}/trajectories/in_order_replay_buffer.py", "InOrderReplayBuffer.sample"),
    Hop(DRIVER, DRIVER, "check versions and failures", f"{_ADAPTER}/trainers/pipelined_trainer.py",
        "OneOffPipelineTrainer.check_batch"),
    Hop(DRIVER, DRIVER, "filter", "filters/filter_chain.py", "apply_filters"),
    Hop(DRIVER, RANKS, "log-probs", f"{_ADAPTER}/trainers/rank_worker.py",
        "RankWorker.compute_log_prob"),
    Hop(DRIVER, DRIVER, "advantages", f"{_ADAPTER}/trainers/jagged_trainer.py",
        "JaggedTrainer._compute_advantage"),
    Hop(DRIVER, RANKS, "update", f"{_ADAPTER}/trainers/rank_worker.py", "RankWorker.update_actor"),
    Hop(RANKS, REPLICAS, "send the new weights", f"{_ADAPTER}/rollout/rollout_pool.py",
        "RolloutPool.send_weights"),
    Hop(REPLICAS, DRIVER, "compare what arrived", f"{_ADAPTER}/weights/weight_fingerprints.py",
        "FingerprintCheck.compare"),
)  # fmt: skip

# Units of the drawing; WIDE is how many pixels it takes where there is room.
WIDTH, WIDE, TOP, ROW, FIRST, STEP = 400, 560, 34, 31, 34, 66
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .lane { font-weight: 600; text-anchor: middle }
  .number { font-weight: 600; fill: #0b5cad }
  .ground { fill: #f6f8fa; stroke: #d1d9e0 }
  .life { stroke: #c3ccd6; stroke-dasharray: 3 3 }
  .hop { stroke: #0b5cad; stroke-width: 1.6; fill: none }
  .head { fill: #0b5cad }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .number { fill: #79c0ff }
    .ground { fill: #151b23; stroke: #3d444d }
    .life { stroke: #4b5563 }
    .hop { stroke: #79c0ff }
    .head { fill: #79c0ff }
  }
"""


def draw_figure() -> str:
    """The figure as SVG."""
    height = TOP + ROW * len(HOPS) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{height * WIDE // WIDTH}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>One batch, from hop to hop</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
    ]
    for lane, name in enumerate(LANES):
        x = _place(lane)
        parts.append(f'<text class="lane" x="{x}" y="22">{name}</text>')
        parts.append(f'<line class="life" x1="{x}" y1="{TOP}" x2="{x}" y2="{height - 8}"/>')
    for number, hop in enumerate(HOPS, 1):
        parts += _draw_hop(number, hop, TOP + ROW * (number - 1))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(lane: int) -> int:
    return FIRST + STEP * lane


def _draw_hop(number: int, hop: Hop, top: int) -> list[str]:
    """A line of text, and an arrow below it."""
    begin, end, y = _place(hop.begin), _place(hop.end), top + 24
    left = min(begin, end) + (9 if begin == end else 5)
    text = (
        f'<text x="{left}" y="{top + 16}"><tspan class="number">{number}</tspan> '
        f"{escape(hop.label)}</text>"
    )
    if begin == end:
        return [text, f'<circle class="head" cx="{begin}" cy="{top + 12}" r="3.5"/>']
    tip = 7 if end < begin else -7
    return [
        text,
        f'<line class="hop" x1="{begin}" y1="{y}" x2="{end + tip}" y2="{y}"/>',
        f'<path class="head" d="M{end} {y} l{tip} -4 v8 z"/>',
    ]


if __name__ == "__main__":
    print(draw_figure(), end="")
