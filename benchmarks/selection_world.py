"""A made-up policy over many prompts, whose pass rates move as it trains: what a selector meets.

What is assumed (:class:`World`); nothing of it was fitted to a run:

* Each prompt belongs to a source and has a difficulty in logits; a tag in three values tells the
  difficulty with noise. The policy has an ability for each source; a prompt's pass rate is
  sigmoid(ability - difficulty + what the policy has memorised of this prompt).
* Difficulties spread so widely that most prompts are solved nearly never or nearly always: about a
  third of uniform's groups have a signal at first.
* Rewards are 0 or 1, members of a group independent.
* A group teaches only if its members differ. It then adds to the ability of its source, less to all
  others, and to the memory of its own prompt. A prompt that is trained for the v-th time teaches
  1 / sqrt(v) of what a new one does: else a selector that repeats a few prompts would win.
* The ability gained in a step is proportional to S^g * B^(1-g), S being the groups with a signal
  and B the batch: g = 1 for an update that grows with the signal (plain gradients of a fixed
  denominator), g = 0.5 for one that an optimizer scales to a fixed size, so that fewer groups make
  it noisier instead of smaller.
* Held-out prompts are of the same sources and difficulties and are never trained on; their mean
  pass rate is the score. Abilities drop by nothing: no forgetting, no collapse.

Invariant: what a prompt earns when it is sampled follows from (seed, batch, prompt) and the policy
that samples; all selectors meet the same world.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from verl_pipeline.curriculum.curriculum import Curriculum
from verl_pipeline.curriculum.measures import has_signal
from verl_pipeline.curriculum.outcomes import make_outcomes
from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable
from verl_pipeline.curriculum.registry import load_selector

HELD_OUT = 4000
TAG_NOISE = 1.5


@dataclass(frozen=True)
class Shape:
    """Size and assumptions of a world.

    Attributes:
        prompts: of the training set.
        batch, members: prompts of a batch, samples of each.
        sources: number of sources.
        spread: standard deviation of the difficulties, in logits.
        rate: ability that a step with a signal in every group adds, in logits.
        transfer: share of it that every other source gains.
        memory: what a group with a signal adds to its own prompt, in logits.
        growth: g of the module.
        lag: batches by which outcomes come late, as the staleness.
    """

    prompts: int = 100_000
    batch: int = 128
    members: int = 8
    sources: int = 10
    spread: float = 4.0
    rate: float = 0.02
    transfer: float = 0.3
    memory: float = 0.3
    growth: float = 1.0
    lag: int = 1


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


class World:
    """See the module.

    Args:
        seed: of the prompts and of all that they earn.
    """

    def __init__(self, shape: Shape, seed: int):
        random = np.random.RandomState([seed, 0])
        self.shape, self._seed = shape, seed
        self._means = random.normal(2.0, 2.0, shape.sources)
        self._sources, self._difficulties = self._draw_prompts(random, shape.prompts)
        self._held_out = self._draw_prompts(random, HELD_OUT)
        noise = random.normal(0, TAG_NOISE, shape.prompts)
        seen = self._difficulties + noise
        self._tags = np.digitize(seen, np.quantile(seen, [1 / 3, 2 / 3]))
        self._ability = np.zeros(shape.sources)
        self._memory = np.zeros(shape.prompts)
        self._visits = np.zeros(shape.prompts, dtype=np.int64)

    def _draw_prompts(self, random: np.random.RandomState, n: int) -> tuple[np.ndarray, np.ndarray]:
        sources = random.randint(self.shape.sources, size=n)
        return sources, random.normal(self._means[sources], self.shape.spread)

    @property
    def score(self) -> float:
        """Mean pass rate of the held-out prompts."""
        sources, difficulties = self._held_out
        return float(_sigmoid(self._ability[sources] - difficulties).mean())

    def make_table(self) -> PromptTable:
        """What a selector knows of the prompts."""
        n, seed = self.shape.prompts, self._seed
        return PromptTable(
            order=lambda epoch: np.random.RandomState([seed, 1, epoch]).permutation(n),
            sources=[f"source {number}" for number in self._sources.tolist()],
            difficulties=[("easy", "medium", "hard")[tag] for tag in self._tags.tolist()],
            pass_rates=np.full(n, np.nan),
            read_texts=lambda: [""] * n,
        )

    def sample(self, batch: int, rows: np.ndarray) -> np.ndarray:
        """Rewards of the groups of ``rows``: float64, shape (rows, members)."""
        logits = self._ability[self._sources[rows]] - self._difficulties[rows] + self._memory[rows]
        random = np.random.RandomState([self._seed, 2, batch])
        drawn = random.random_sample((len(rows), self.shape.members))
        return (drawn < _sigmoid(logits)[:, None]).astype(np.float64)

    def train(self, rows: np.ndarray, rewards: np.ndarray) -> None:
        """One update on the groups of ``rows``, of which there may be fewer than a batch has."""
        shape = self.shape
        taught = rows[np.ptp(rewards, axis=1) > 0]
        if not len(taught):
            return
        self._visits[taught] += 1
        lessons = np.bincount(
            self._sources[taught],
            1 / np.sqrt(self._visits[taught]),
            minlength=shape.sources,
        )
        signal = len(taught) / shape.batch
        gains = shape.rate * lessons / len(taught) * shape.sources * signal**shape.growth
        self._ability += (1 - shape.transfer) * gains + shape.transfer * gains.mean()
        self._memory[taught] += shape.memory


def find_cost(generated: Sequence[int], scores: Sequence[float], score: float) -> float | None:
    """Trajectories generated until the score was first reached; None if it never was."""
    pairs = zip(generated, scores, strict=True)
    return next((float(count) for count, found in pairs if found >= score), None)


@dataclass
class Course:
    """What a simulated training left, step by step.

    Attributes:
        generated: trajectories generated so far.
        scores: held-out score after the step.
        signal: share of the generated groups with a signal.
        metrics: the last ``curriculum/*``.
    """

    generated: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def find_cost(self, score: float) -> float | None:
        """Trajectories generated until the score was first reached; None if it never was."""
        return next(
            (
                float(n)
                for n, found in zip(self.generated, self.scores, strict=True)
                if found >= score
            ),
            None,
        )


def _make_curriculum(world: World, entry: object, floor_share: float, lag: int) -> Curriculum:
    return Curriculum(
        load_selector(entry),  # type: ignore[arg-type]
        world.make_table(),
        batch_size=world.shape.batch,
        lag=lag,
        floor_share=floor_share,
        seed=1,
        fingerprint="",
    )


def _grade(curriculum: Curriculum, batch: int, rewards: np.ndarray) -> list[GroupOutcome]:
    groups, members = rewards.shape
    places = np.repeat(np.arange(groups), members)
    flat = rewards.ravel()
    zeros = np.zeros(len(flat), dtype=np.int64)
    return make_outcomes(curriculum.get_proposal(batch), places.tolist(), flat, zeros, zeros, None)


def simulate_selector(
    world: World,
    entry: object,
    budget: int,
    floor_share: float = 0.1,
    report: Callable[[int], None] = lambda _generated: None,
) -> Course:
    """Train with a selector until ``budget`` trajectories have been generated.

    As in the pipeline, a batch is sampled by the policy of ``lag`` updates before it is trained.

    Args:
        entry: of the selector, as in the configuration.
        report: called after each step.
    """
    shape, course = world.shape, Course()
    curriculum = _make_curriculum(world, entry, floor_share, shape.lag)
    sampled: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    steps = budget // (shape.batch * shape.members)
    for step in range(1, steps + 1):
        for batch in range(max(sampled, default=step - 1) + 1, min(step + shape.lag, steps) + 1):
            rows = curriculum.propose(batch)
            sampled[batch] = rows, world.sample(batch, rows)
        rows, rewards = sampled.pop(step)
        outcomes = _grade(curriculum, step, rewards)
        course.metrics = curriculum.observe(step, outcomes)
        world.train(rows, rewards)
        course.generated.append(step * shape.batch * shape.members)
        course.scores.append(world.score)
        course.signal.append(float(np.mean([has_signal(one) for one in outcomes])))
        report(course.generated[-1])
    return course


def simulate_refill(
    world: World, budget: int, report: Callable[[int], None] = lambda _generated: None
) -> Course:
    """Train as DAPO does: prompts in uniform order, until a batch of groups has a signal.

    All that was generated is paid for. What exceeds a batch is thrown away, as verl's
    ``filter_groups`` does with whole generations of a batch each.
    """
    shape, course = world.shape, Course()
    curriculum = _make_curriculum(world, "uniform", 1.0, lag=0)
    generated = batch = 0
    while generated < budget:
        kept_rows: list[np.ndarray] = []
        kept_rewards: list[np.ndarray] = []
        kept = groups = 0
        while kept < shape.batch and generated < budget:
            batch += 1
            rows = curriculum.propose(batch)
            rewards = world.sample(batch, rows)
            course.metrics = curriculum.observe(batch, _grade(curriculum, batch, rewards))
            has = np.ptp(rewards, axis=1) > 0
            kept_rows.append(rows[has])
            kept_rewards.append(rewards[has])
            kept, groups = kept + int(has.sum()), groups + len(rows)
            generated += rewards.size
        world.train(
            np.concatenate(kept_rows)[: shape.batch], np.concatenate(kept_rewards)[: shape.batch]
        )
        course.generated.append(generated)
        course.scores.append(world.score)
        course.signal.append(kept / groups)
        report(generated)
    return course
