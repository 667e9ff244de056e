"""The cause of a failure is found in a log as Ray writes it."""

import pytest

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.testing.runs import Run

PREFIX = "\x1b[36m(TaskRunner pid=123, ip=10.0.0.2)\x1b[0m "
TRACEBACK = """Traceback (most recent call last):
  File "/a/main.py", line 5, in <module>
    main()
ray.exceptions.RayTaskError(RuntimeError): ray::TaskRunner.run() (pid=123, ip=10.0.0.2)
  File "/a/b.py", line 3, in f
    g()
    ^^^
RuntimeError: rollout replica 0 at 10.0.0.3:1234 does not answer
"""


def read(output: str) -> Outcome:
    return Outcome(Run(1, output, {}, [], [], []), 1.0)


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (TRACEBACK, "RuntimeError: rollout replica 0 at 10.0.0.3:1234 does not answer"),
        (TRACEBACK + "step 1: done\nNote: nothing\n", "RuntimeError: rollout replica 0 at"),
        ("".join(PREFIX + line for line in TRACEBACK.splitlines(True)), "RuntimeError: rollout"),
        ("INFO: fine\nerror: Ray did not start it\nbye\n", "Ray did not start it"),
        ("INFO: fine\n\n  bye  \n\n", "bye"),
        ("", "it printed nothing"),
        ("  f()\nE: a\x1b[2Jb\x07", "E: a\\x1b[2Jb\\x07"),
    ],
)
def test_the_cause_is_the_last_error(output, cause):
    assert read(output).cause.startswith(cause)


def test_refusals_are_all_lines_of_the_entry_point():
    assert read("x\nerror: a=1: no\nerror: b=2: no\n").refusals == ["a=1: no", "b=2: no"]


def test_an_error_of_weights_is_told_from_another_that_names_it():
    assert read("  f()\nverl_pipeline.x.WeightsDiffer: v_1: q\n").weights_error == "v_1: q"
    assert read("the class WeightsDiffer: see there\n").weights_error is None
    assert read(TRACEBACK).weights_error is None
