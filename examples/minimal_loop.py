"""The one-off pipeline in 200 lines, without verl: ``python examples/minimal_loop.py``.

Two processes: this one trains, the other samples. The order of what they do is not written here: it
is ``verl_pipeline.trainer.schedule``, which also drives verl's trainer in a real run. ``Loop``
below gives it what a schedule needs: drain, send, submit, train.

The task: count on from a digit, modulo ten. The reward of a response is the share of its tokens
that are right. Lengths have a long tail, as those of a reasoning model have. The algorithm is GRPO:
the advantage of a response is its reward against those of its group, the responses to one prompt.

It trains the same model twice, at staleness 0 and at 1, and prints when each process was busy. That
takes about a minute on two idle cores. Look for both sides of the bargain: at 1 the steps are
shorter, and the reward is about one update behind.
"""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.trainer.schedule import Dial, fill_pipeline, oldest_allowed_version, run_step

STEPS, PROMPTS, SAMPLES, LIMIT = 20, 48, 8, 128
WIDTH, CLIP, LEARNING_RATE = 512, 0.2, 3e-4
DIGITS = 10
# How long to wait for the other process before saying that it hangs.
DEADLINE_S = 60.0
# Of one character in the picture.
CHARACTER_S = 0.15


def make_policy() -> nn.Sequential:
    """Logits of the next digit, [..., DIGITS], from one-hot of the digit before it."""
    torch.manual_seed(0)
    hidden = [nn.Linear(WIDTH, WIDTH), nn.ReLU()] * 2
    return nn.Sequential(nn.Embedding(DIGITS, WIDTH), *hidden, nn.Linear(WIDTH, DIGITS))


@dataclass
class Batch:
    """What the rollout process returns for one batch; n rows, padded to LIMIT tokens.

    Attributes:
        prompts: [n], the digit to count on from; SAMPLES rows in a row are one group.
        responses, log_probs, mask: [n, LIMIT]; the mask is true for tokens of the response.
        rewards: [n], share of right tokens.
        version: of the weights that sampled all of it.
        began, ended: seconds of the machine's clock.
    """

    number: int
    version: int
    prompts: Tensor
    responses: Tensor
    log_probs: Tensor
    mask: Tensor
    rewards: Tensor
    began: float
    ended: float


def sample_batch(policy: nn.Module, number: int, version: int) -> Batch:
    """Sample SAMPLES responses to each of PROMPTS prompts. The seed is the batch's number."""
    began = time.time()
    random = torch.Generator().manual_seed(number)
    prompts = torch.randint(DIGITS, (PROMPTS,), generator=random).repeat_interleave(SAMPLES)
    # Lognormal lengths, cut off at the limit: most responses are short, and some are very long.
    lengths = torch.exp(3.0 + torch.randn(len(prompts), generator=random)).clamp(1, LIMIT).long()
    responses = torch.zeros(len(prompts), LIMIT, dtype=torch.long)
    log_probs = torch.zeros(len(prompts), LIMIT)
    last = prompts
    with torch.no_grad():
        for position in range(int(lengths.max())):
            running = lengths > position
            log_p = policy(last[running]).log_softmax(-1)
            chosen = torch.multinomial(log_p.exp(), 1, generator=random)
            responses[running, position] = chosen[:, 0]
            log_probs[running, position] = log_p.gather(1, chosen)[:, 0]
            last = responses[:, position]
    mask = torch.arange(LIMIT) < lengths[:, None]
    right = (responses == (find_previous(prompts, responses) + 1) % DIGITS) & mask
    rewards = right.sum(1) / lengths
    return Batch(number, version, prompts, responses, log_probs, mask, rewards, began, time.time())


def find_previous(prompts: Tensor, responses: Tensor) -> Tensor:
    """The digit before each of a response, [n, LIMIT]."""
    return torch.cat([prompts[:, None], responses[:, :-1]], dim=1)


def run_rollout(orders: Connection) -> None:
    """The rollout process: it loads weights and samples batches, in the order of its orders."""
    torch.set_num_threads(1)
    policy, version = make_policy(), -1
    orders.send("ready")
    while (order := orders.recv()) is not None:
        kind, number, weights = order
        if kind == "load":
            policy.load_state_dict(weights)
            version = number
        else:
            orders.send(sample_batch(policy, number, version))


class Loop:
    """What the schedule drives (:class:`verl_pipeline.trainer.schedule.Pipeline`)."""

    def __init__(self, rollout: Connection, dial: Dial):
        self.rollout, self.dial = rollout, dial
        self.policy = make_policy()
        self.optimizer = torch.optim.Adam(self.policy.parameters(), LEARNING_RATE)
        self.held_version = -1
        self.submitted: set[int] = set()
        self.complete: dict[int, Batch] = {}
        self.sampled: list[tuple[int, float, float]] = []
        self.trained: list[tuple[int, float, float]] = []
        self.rewards: list[float] = []

    def drain_rollout(self) -> None:
        """Wait until all that was submitted is complete: the rollout process is idle then."""
        while self.submitted:
            self._receive()

    def send_weights(self, version: int) -> None:
        """Let the rollout process load v_version."""
        if version != self.held_version:
            self.rollout.send(("load", version, self.policy.state_dict()))
            self.held_version = version

    def submit_batch(self, batch: int) -> None:
        """Return at once; the rollout process samples with the weights that it holds."""
        self.submitted.add(batch)
        self.rollout.send(("sample", batch, None))

    def train_batch(self, batch: int) -> None:
        """Wait until a batch is complete, then train on it."""
        while batch not in self.complete:
            self._receive()
        found = self.complete.pop(batch)
        assert found.version >= oldest_allowed_version(batch, self.dial.staleness)
        began = time.time()
        self._update(found)
        self.trained.append((batch, began, time.time()))
        self.rewards.append(float(found.rewards.mean()))
        reward = format_decimal(self.rewards[-1], 2)
        print(f"  step {batch:2}: reward {reward}, sampled with v_{found.version}")

    def publish_weights(self, version: int) -> None:
        """Only the modes without a barrier publish; see docs/schedule/modes.md."""
        raise NotImplementedError

    def begin_validation(self, version: int) -> None:
        """This loop has no validation."""

    def _receive(self) -> None:
        if not self.rollout.poll(DEADLINE_S):
            raise TimeoutError(f"no batch of {sorted(self.submitted)} came in {DEADLINE_S:g} s")
        batch = self.rollout.recv()
        self.submitted.remove(batch.number)
        self.complete[batch.number] = batch
        self.sampled.append((batch.number, batch.began, batch.ended))

    def _update(self, batch: Batch) -> None:
        """One step of GRPO with PPO's clipped ratio, averaged over tokens."""
        groups = batch.rewards.view(PROMPTS, SAMPLES)
        centred = groups - groups.mean(1, keepdim=True)
        advantages = (centred / (groups.std(1, keepdim=True) + 1e-6)).view(-1, 1)
        # Padding costs nothing: from here on, tokens are in one row, [tokens].
        mask = batch.mask
        advantage = advantages.expand(-1, LIMIT)[mask]
        log_p = self.policy(find_previous(batch.prompts, batch.responses)[mask]).log_softmax(-1)
        log_probs = log_p.gather(1, batch.responses[mask][:, None])[:, 0]
        # What sampled a token may be older than what trains on it: the ratio corrects for that.
        ratio = (log_probs - batch.log_probs[mask]).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
        loss = -gain.mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def train(staleness: int) -> Loop:
    """Start the rollout process, train STEPS steps, and end it."""
    print(f"staleness {staleness}")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_rollout, args=(theirs,))
    process.start()
    try:
        assert ours.poll(DEADLINE_S) and ours.recv() == "ready"
        dial = Dial("drained", staleness)
        loop = Loop(ours, dial)
        fill_pipeline(loop, trained_version=0, held_batches=set(), dial=dial, last_step=STEPS)
        for k in range(1, STEPS + 1):
            run_step(loop, k, dial=dial, last_step=STEPS)
        ours.send(None)
        process.join(DEADLINE_S)
    finally:
        process.kill()
        process.join()
    return loop


def draw(loop: Loop) -> str:
    """Both processes over time; a digit is the last one of a batch's number."""
    start = loop.sampled[0][1]
    lines = []
    for name, spans in (("rollout", loop.sampled), ("trainer", loop.trained)):
        line = [" "] * (int((loop.trained[-1][2] - start) / CHARACTER_S) + 1)
        for batch, began, ended in spans:
            for at in range(int((began - start) / CHARACTER_S), int((ended - start) / CHARACTER_S)):
                line[at] = str(batch % 10)
        lines.append(f"  {name} |{''.join(line)}|")
    return "\n".join(lines)


def main() -> None:
    """Train at staleness 0 and 1, and compare."""
    torch.set_num_threads(1)
    loops = {staleness: train(staleness) for staleness in (0, 1)}
    seconds = {}
    for staleness, loop in loops.items():
        seconds[staleness] = loop.trained[-1][2] - loop.sampled[0][1]
        taken = format_decimal(seconds[staleness])
        print(f"\nstaleness {staleness}: {taken} s for {STEPS} steps")
        print(draw(loop))
    ratio = format_decimal(seconds[0] / seconds[1], 2)
    print(f"\nstaleness 1 was {ratio} times as fast as 0 here, this time.")


if __name__ == "__main__":
    main()
