"""verl's fit loop starts the rollout's profile; our trainer ends it."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline import OneOffPipelineTrainer

STEPS = 6


class Workers:
    """Trainer workers that profile."""

    def start_profile(self, **_arguments):
        pass

    stop_profile = start_profile


class Manager:
    """The rollout servers of verl's manager; ``spans`` are the steps that were profiled."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.open = False
        self.profiled = set()
        self.starts = 0

    def get_addresses(self):
        return []

    def get_replicas(self):
        return []

    def start_profile(self):
        assert not self.open
        self.open = True
        self.starts += 1

    def stop_profile(self):
        assert self.open
        self.open = False


def run_fit(steps, is_continuous):
    """The calls of verl's ``PPOTrainer.fit`` that concern profiles."""
    trainer = object.__new__(OneOffPipelineTrainer)
    trainer.config = SimpleNamespace(
        global_profiler=SimpleNamespace(steps=steps, profile_continuous_steps=is_continuous)
    )
    manager = Manager(trainer)
    trainer.rollout_pool = SimpleNamespace(manager=manager)
    trainer.actor_rollout_wg = Workers()
    trainer.use_reference_policy = trainer.use_critic = False
    trainer.total_training_steps = STEPS
    trainer.global_steps = 1
    trainer.prev_step_profile = trainer.next_step_profile = False
    trainer.curr_step_profile = 1 in steps if steps is not None else False
    while trainer.global_steps <= STEPS:
        trainer._start_profiling()
        trainer.on_sample_end()
        if manager.open:
            manager.profiled.add(trainer.global_steps)
        trainer._stop_profiling()
        trainer.on_step_end()
        trainer.global_steps += 1
    return manager


@given(st.none() | st.sets(st.integers(1, STEPS)), st.booleans())
def test_the_profile_spans_the_chosen_steps_and_ends(steps, is_continuous):
    manager = run_fit(None if steps is None else sorted(steps), is_continuous)
    chosen = steps or set()
    assert manager.profiled == chosen and not manager.open
    rows = {step for step in chosen if step - 1 not in chosen}
    assert manager.starts == len(rows if is_continuous else chosen)
