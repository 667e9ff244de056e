"""Checks run in their order, all findings are kept, and none is reported for another's reason."""

import pytest

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checks.check_report import (
    Check,
    NotChecked,
    OutOfReachError,
    run_checks,
)


def raise_error(error):
    def examine(_config):
        raise error

    return examine


CHECKS = [
    Check("fine", lambda config: None),
    Check("two", lambda config: iter([ConfigError("a=1: wrong"), ConfigError("b=1: wrong")])),
    Check("upon two", raise_error(ConfigError("c=1: follows from a")), needs=["two"]),
    Check("upon that", raise_error(ConfigError("d=1: follows from c")), needs=["upon two"]),
    Check("one", raise_error(ConfigError("e=1: wrong")), needs=["fine"]),
    Check("same", raise_error(ConfigError("e=1: wrong"))),
    Check("unforeseen", raise_error(KeyError("a\nb"))),
    Check("unread", raise_error(NotChecked("f: remote"))),
    Check("upon unread", raise_error(ConfigError("g=1: wrong")), needs=["unread"]),
    Check("hub", raise_error(OutOfReachError("h: no answer"))),
]


def test_every_finding_is_kept_once_and_what_builds_on_a_failure_is_left_out():
    report = run_checks(None, CHECKS)
    *errors, last_but_one, last = report.errors
    assert errors == ["a=1: wrong", "b=1: wrong", "e=1: wrong"]
    assert last_but_one.startswith("check of unforeseen: KeyError: ") and "\n" not in last_but_one
    assert last == "g=1: wrong"
    assert report.not_checked == ["f: remote"] and report.out_of_reach == ["h: no answer"]
    assert {"two", "upon two", "upon that", "hub"} <= report.failed
    assert not {"fine", "unread"} & report.failed


def test_a_run_needs_what_a_check_may_leave_open():
    with pytest.raises(ConfigError, match="^h: no answer$"):
        run_checks(None, CHECKS[-1:]).raise_errors()
    run_checks(None, [CHECKS[0], CHECKS[-3]]).raise_errors()
    run_checks(None, CHECKS, skip=[check.name for check in CHECKS]).raise_errors()
