"""A run whose staleness changes: every batch once, in order, and each checked against its own."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.auto_staleness import WINDOW
from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.trainer.run_dial import RunDial
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING, Dial


def make_settings(mode=ROLLING, staleness="auto"):
    return OneOffPipelineConfig(weight_sync_mode=mode, staleness=staleness)


class Trainer:
    """What the schedule drives; notes how far ahead each batch was submitted."""

    def __init__(self, settings, last, trained=0, held=()):
        self.dial, self.last, self.step = RunDial(settings), last, trained + 1
        self.submitted, self.leads, self.trained = [], {}, []
        self.dial.resume(trained, held)
        schedule.fill_pipeline(
            self,
            trained_version=trained,
            held_batches=set(held),
            dial=self.dial.current,
            last_step=last,
        )

    def begin_validation(self, version):
        pass

    def submit_batch(self, batch):
        self.submitted.append(batch)
        self.leads[batch] = (self.dial.submit(batch, self.step).staleness, batch - self.step)

    def train_batch(self, batch):
        self.trained.append(batch)

    def publish_weights(self, version):
        pass

    def run(self, choose):
        for k in range(self.step, self.last + 1):
            self.step = k
            schedule.run_step(
                self,
                k,
                dial=self.dial.current,
                last_step=self.last,
                submitted=self.dial.submitted,
            )
            own = self.dial.take(k)
            if k in self.leads:
                assert own.staleness == self.leads[k][0] >= self.leads[k][1]
            choose(self, k)
        return self


@settings(deadline=None)
@given(
    chosen=st.lists(st.integers(1, 8), min_size=1, max_size=30),
    held=st.integers(0, 8),
    trained=st.integers(0, 3),
)
def test_whatever_is_chosen_each_batch_is_submitted_once_in_order(chosen, held, trained):
    def choose(trainer, k):
        trainer.dial.current = Dial(ROLLING, chosen[k % len(chosen)])

    last = trained + len(chosen)
    held = [trained + 1 + index for index in range(min(held, len(chosen)))]
    trainer = Trainer(make_settings(), last, trained, held).run(choose)
    assert held + trainer.submitted == trainer.trained == list(range(trained + 1, last + 1))


def test_the_wait_for_batches_raises_it_and_the_change_is_said():
    said = []

    def choose(trainer, k):
        lead = trainer.leads[k][1]
        wait_s = max(32.0 / max(lead, 1) - 10.0, 0.0)
        metrics = {"pipeline/batch/complete_s": 32.0}
        timers = {"gen": wait_s, "step": 12.0 + wait_s, "save_checkpoint": 2.0}
        found, sentence = trainer.dial.end_step(k, metrics, timers)
        assert found == {"pipeline/staleness/dial": trainer.dial.current.staleness}
        said.extend([sentence] if sentence else [])

    trainer = Trainer(make_settings(), 40).run(choose)
    assert trainer.dial.current == Dial(ROLLING, 4)
    assert len(said) == 3 and said[0].startswith(
        f"step {WINDOW + 1}: staleness 1 becomes 2, since the trainer waited for 69 % of the last"
    )


def test_a_fixed_staleness_stays_and_a_held_batch_may_have_the_largest():
    dial = RunDial(make_settings(IN_FLIGHT, 4))
    dial.resume(3, [4, 5])
    assert dial.submitted == 5 and dial.current == Dial(IN_FLIGHT, 4) == dial.take(4)
    assert dial.end_step(4, {}, {"step": 1.0}) == ({}, None)
    assert RunDial(make_settings(DRAINED, 0)).current == Dial(DRAINED, 0)


def test_auto_goes_on_with_the_lead_that_a_checkpoint_holds():
    dial = RunDial(make_settings())
    dial.resume(10, [11, 12, 13])
    assert dial.current.staleness == 3
    # Held batches were submitted by an earlier run: they are not what this staleness is judged by.
    found, sentence = dial.end_step(11, SimpleNamespace(get=lambda _name: 1.0), {"step": 2.0})
    assert sentence is None and found == {"pipeline/staleness/dial": 3.0}
