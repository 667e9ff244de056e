"""Runs checks of a configuration and collects all that they find.

Invariants:
* No check hides another's finding: each runs, unless one that it builds on has failed.
* Nothing is passed over in silence: what could not be looked at is listed with the reason.
* A value that cannot be read (it is missing, a reference to nothing, no section) is one finding, of
  the check of :data:`READABLE`. The others go as far as they come without it.
* A finding is one line. An exception that no check foresaw becomes a finding, too: a user may have
  written any value.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from verl_pipeline.errors import show_line
from verl_pipeline.trainer.pipeline_config import ConfigError

# Name of the check that finds the values which no check can read.
READABLE = "readable values"
# What OmegaConf raises for them.
_UNREADABLE = (MissingMandatoryValue, InterpolationResolutionError)


class NotChecked(Exception):
    """Something that cannot be looked at here and may be in order; one line: what, and why."""


class OutOfReachError(ConfigError):
    """Something that a run needs and that cannot be read from here.

    A run cannot start; someone who only checks learns that it was not checked.
    """


class UnforeseenError(ConfigError):
    """An exception that a check did not foresee."""


# What a check yields or raises; it may also return nothing.
Finding = ConfigError | NotChecked
Findings = Iterator[Finding]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: by which others build on it and a caller skips it.
        examine: yields its findings, or raises the only one.
        needs: names of the checks without which this one would fail for their reason.
    """

    name: str
    examine: Callable[[DictConfig], Iterable[Finding] | None]
    needs: Collection[str] = ()


@dataclass
class CheckReport:
    """What the checks have found, one line each."""

    errors: list[str] = field(default_factory=list)
    out_of_reach: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    # Names of the checks that have failed, or were left out because they build on such.
    failed: set[str] = field(default_factory=set)

    def raise_errors(self) -> None:
        """Refuse a run.

        Raises:
            ConfigError: there is something that a run cannot do without; one line each.
        """
        if lines := self.errors + self.out_of_reach:
            raise ConfigError(*lines)


def run_checks(
    config: DictConfig, checks: Sequence[Check], skip: Collection[str] = ()
) -> CheckReport:
    """Run ``checks`` in their order, which has the cheap ones first.

    Args:
        skip: names of checks that are left out.
    """
    report = CheckReport()
    failed = report.failed
    for check in checks:
        if check.name in skip:
            continue
        if failed & set(check.needs):
            failed.add(check.name)
            continue
        for finding in _list_findings(check, config):
            if READABLE in failed and _is_consequence(finding):
                failed.add(check.name)
                continue
            if isinstance(finding, NotChecked):
                report.not_checked.append(show_line(str(finding)))
                continue
            failed.add(check.name)
            lines = report.errors
            if isinstance(finding, OutOfReachError):
                lines = report.out_of_reach
            lines += [line for line in finding.lines if line not in lines]
    return report


def _list_findings(check: Check, config: DictConfig) -> Findings:
    try:
        yield from check.examine(config) or ()
    except (ConfigError, NotChecked) as finding:
        yield finding
    except Exception as error:  # values of a kind that the check does not expect
        text = f"check of {check.name}: {describe_exception(error)}"
        unforeseen = UnforeseenError(f"{text}; correct the settings it concerns")
        unforeseen.__cause__ = error
        yield unforeseen


def _is_consequence(finding: Finding) -> bool:
    """Whether a check has ended at a value that cannot be read, which has a finding of its own."""
    return isinstance(finding, UnforeseenError) or isinstance(finding.__cause__, _UNREADABLE)


def describe_exception(error: BaseException) -> str:
    """Type and message of ``error`` in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
