"""The schedule's invariants on a simulated pipeline, and planted faults that break each of them."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.schedule import DRAINED, Dial


@dataclass
class Simulation:
    """Both pools, without engines: generation ends when somebody waits for it."""

    version: int | None = None
    trained: int = 0
    running: list[int] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)
    spans: dict[int, set[int]] = field(default_factory=dict)
    submitted: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    beside: frozenset[int] = frozenset()
    validating: int | None = None
    validated: dict[int, int | None] = field(default_factory=dict)

    def drain_rollout(self):
        self.validating = None
        self.complete += self.running
        self.running = []

    def send_weights(self, version):
        assert version == self.trained, f"v_{version} is sent, the trainer holds v_{self.trained}"
        self.version = version
        assert self.validating is None, f"v_{version} is sent in a validation"
        for batch in self.running:  # a request that is running goes on with the new weights
            self.spans[batch].add(version)

    def begin_validation(self, version):
        if version in self.beside:
            self.validating, self.validated[version] = version, self.version

    def submit_batch(self, batch):
        self.submitted.append(batch)
        self.running.append(batch)
        self.spans[batch] = {self.version}

    def train_batch(self, batch):
        if batch in self.running:
            self.running.remove(batch)
            self.complete.append(batch)
        self.complete.remove(batch)
        self.order.append(batch)
        self.trained = batch


def run(staleness, last, *, boundaries=(), pipeline=None, step=schedule.run_step):
    pipeline = pipeline or Simulation()
    first = pipeline.trained + 1
    schedule.fill_pipeline(
        pipeline,
        trained_version=pipeline.trained,
        held_batches=set(pipeline.complete),
        dial=Dial(DRAINED, staleness),
        last_step=last,
    )
    for k in range(first, last + 1):
        step(pipeline, k, dial=Dial(DRAINED, staleness), last_step=last)
        if k in boundaries:
            schedule.prepare_checkpoint(pipeline, Dial(DRAINED, staleness))
            schedule.prepare_validation(pipeline, k, Dial(DRAINED, staleness))
    return pipeline


def violations(pipeline, staleness, last, *, fresher=False):
    """One sentence for each broken invariant.

    ``fresher`` allows newer weights than the table's, as after a validation or a resume.
    """
    found = []
    for batch in range(1, last + 1):
        span = pipeline.spans.get(batch, set())
        wanted = schedule.oldest_allowed_version(batch, staleness)
        if len(span) != 1:
            found.append(f"batch {batch} was sampled by {sorted(span)}")
        elif span != {wanted} and not (fresher and wanted < min(span) < batch):
            found.append(f"batch {batch} was sampled by {span}, not v_{wanted}")
    if pipeline.submitted != list(range(1, last + 1)):
        found.append(f"submitted {pipeline.submitted}")
    if pipeline.order != list(range(1, last + 1)):
        found.append(f"trained {pipeline.order}")
    if pipeline.running or pipeline.complete:
        found.append(f"generated and thrown away: {pipeline.running + pipeline.complete}")
    return found


@given(
    staleness=st.sampled_from([0, 1]),
    last=st.integers(0, 12),
    boundaries=st.sets(st.integers(1, 12)),
)
def test_versions_batches_and_order_are_those_of_the_table(staleness, last, boundaries):
    pipeline = run(staleness, last, boundaries=boundaries)
    assert violations(pipeline, staleness, last) == []


@given(
    staleness=st.sampled_from([0, 1]),
    last=st.integers(1, 12),
    beside=st.frozensets(st.integers(0, 12)),
)
def test_a_validation_beside_the_training_has_the_weights_of_its_step(staleness, last, beside):
    pipeline = run(staleness, last, pipeline=Simulation(beside=beside))
    assert violations(pipeline, staleness, last) == []
    assert pipeline.validated == {k: k for k in beside if k < last}


@pytest.mark.parametrize("staleness", [0, 1])
def test_table_of_the_design(staleness):
    pipeline = run(staleness, 5)
    wanted = {0: [0, 1, 2, 3, 4], 1: [0, 0, 1, 2, 3]}[staleness]
    assert [min(pipeline.spans[batch]) for batch in range(1, 6)] == wanted


@given(
    staleness=st.sampled_from([0, 1]),
    last=st.integers(1, 10),
    stop=st.integers(1, 10),
    resumed_last=st.integers(1, 14),
)
def test_resume_after_a_drained_checkpoint_is_the_uninterrupted_run(
    staleness, last, stop, resumed_last
):
    """Stop after a checkpoint; go on to the same or to a later last step."""
    stop = min(stop, last)
    resumed_last = max(resumed_last, last)
    pipeline = Simulation()
    schedule.fill_pipeline(
        pipeline,
        trained_version=0,
        held_batches=set(),
        dial=Dial(DRAINED, staleness),
        last_step=last,
    )
    for k in range(1, stop + 1):
        schedule.run_step(pipeline, k, dial=Dial(DRAINED, staleness), last_step=last)
    schedule.prepare_checkpoint(pipeline, Dial(DRAINED, staleness))
    restored = Simulation(
        trained=stop,
        complete=list(pipeline.complete),
        spans=dict(pipeline.spans),
        submitted=list(pipeline.submitted),
        order=list(pipeline.order),
    )
    run(staleness, resumed_last, pipeline=restored)
    # Only a run that is prolonged past its last step has a batch that could not be sampled ahead.
    assert violations(restored, staleness, resumed_last, fresher=resumed_last > last) == []
    if resumed_last == last:
        assert restored.spans == run(staleness, last).spans


@given(staleness=st.sampled_from([0, 1]), last=st.integers(1, 10), stop=st.integers(1, 10))
def test_a_checkpoint_that_waits_for_nobody_loses_only_what_is_sampled_again(staleness, last, stop):
    stop = min(stop, last)
    dial, pipeline = Dial(DRAINED, staleness), Simulation()
    settings = dict(dial=dial, last_step=last)
    schedule.fill_pipeline(pipeline, trained_version=0, held_batches=set(), **settings)
    for k in range(1, stop + 1):
        schedule.run_step(pipeline, k, **settings)
    schedule.prepare_checkpoint(pipeline, dial, drains=False)
    assert pipeline.running == list(range(stop + 1, min(stop + staleness, last) + 1))
    kept = [batch for batch in pipeline.submitted if batch not in pipeline.running]
    restored = Simulation(
        trained=stop,
        complete=list(pipeline.complete),
        spans={batch: pipeline.spans[batch] for batch in kept},
        submitted=kept,
        order=list(pipeline.order),
    )
    run(staleness, last, pipeline=restored)
    assert violations(restored, staleness, last, fresher=True) == []


def planted_early_sync(pipeline, k, *, dial, last_step):
    pipeline.send_weights(k - 1)
    pipeline.drain_rollout()
    if k + dial.staleness <= last_step:
        pipeline.submit_batch(k + dial.staleness)
    pipeline.train_batch(k)


def planted_late_sync(pipeline, k, *, dial, last_step):
    pipeline.drain_rollout()
    if k + dial.staleness <= last_step:
        pipeline.submit_batch(k + dial.staleness)
    pipeline.drain_rollout()
    pipeline.send_weights(k - 1)
    pipeline.train_batch(k)


def planted_swap(pipeline, k, *, dial, last_step):
    pipeline.drain_rollout()
    pipeline.send_weights(k - 1)
    if k + dial.staleness <= last_step:
        pipeline.submit_batch(k + dial.staleness)
    pipeline.trained = k
    pipeline.order.append(k + 1 if k % 2 else k - 1)


def planted_overrun(pipeline, k, *, dial, last_step):
    pipeline.drain_rollout()
    pipeline.send_weights(k - 1)
    pipeline.submit_batch(k + dial.staleness)
    pipeline.train_batch(k)


@pytest.mark.parametrize(
    "planted", [planted_early_sync, planted_late_sync, planted_swap, planted_overrun]
)
def test_a_broken_schedule_is_seen(planted):
    assert violations(run(1, 6, step=planted), 1, 6) != []


def test_validation_without_a_drain_is_seen():
    pipeline = Simulation()
    schedule.fill_pipeline(
        pipeline, trained_version=0, held_batches=set(), dial=Dial(), last_step=4
    )
    schedule.run_step(pipeline, 1, dial=Dial(), last_step=4)
    pipeline.send_weights(1)
    assert any("batch 2" in sentence for sentence in violations(pipeline, 1, 4))
