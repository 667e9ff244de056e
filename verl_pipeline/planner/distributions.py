"""Distributions of lengths and times: lognormal with a cap, empirical, by quantiles, constant.

Invariant: every distribution ends. What has no largest value is refused, as are negative values.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from verl_pipeline.planner.profile_error import ProfileError

# What each kind takes; the first is how many numbers at most describe a distribution.
MAX_VALUES = 1_000_000
FIELDS = {
    "constant": ("value",),
    "lognormal": ("mean", "sigma", "cap"),
    "empirical": ("values",),
    "quantiles": ("shares", "values"),
}
LARGEST_VALUE = 1e9
LARGEST_SIGMA = 10.0
_GRID = (np.arange(4096) + 0.5) / 4096


@dataclass(frozen=True)
class Distribution:
    """A distribution, as the values at evenly spaced points of probability or as parameters.

    Attributes:
        kind: a key of :data:`FIELDS`.
        mean: lognormal: the mean before the cap is applied; constant: the value.
        sigma: lognormal: standard deviation of the logarithm.
        cap: lognormal: larger draws become this value, as responses that fill their limit.
        values: empirical: drawn with equal probability; quantiles: the values at ``shares``.
        shares: quantiles: rising from 0 to 1; the values between two are interpolated linearly.
    """

    kind: str
    mean: float = 0.0
    sigma: float = 0.0
    cap: float = 0.0
    values: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Return ``count`` independent values, float64."""
        if self.kind == "constant":
            return np.full(count, self.mean)
        if self.kind == "empirical":
            return random.choice(np.array(self.values), count)
        if self.kind == "quantiles":
            return np.interp(random.random(count), self.shares, self.values)
        return np.minimum(
            np.exp(self._log_mean + self.sigma * random.standard_normal(count)), self.cap
        )

    @property
    def largest(self) -> float:
        """The largest value that can be drawn."""
        if self.kind in ("empirical", "quantiles"):
            return max(self.values)
        return self.mean if self.kind == "constant" else self.cap

    @cached_property
    def expectation(self) -> float:
        """The mean of what is drawn, the cap included; by 4,096 quantiles if lognormal."""
        if self.kind == "constant":
            return self.mean
        if self.kind == "empirical":
            return math.fsum(self.values) / len(self.values)
        if self.kind == "quantiles":
            return float(np.trapezoid(self.values, self.shares))
        normal = NormalDist()
        quantiles = np.array([normal.inv_cdf(share) for share in _GRID])
        return float(np.minimum(np.exp(self._log_mean + self.sigma * quantiles), self.cap).mean())

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"{self.mean:g}"
        if self.kind == "lognormal":
            return f"lognormal, mean {self.mean:g}, sigma {self.sigma:g}, at most {self.cap:g}"
        return (
            f"{self.kind} of {len(self.values)}, mean {self.expectation:g}, at most "
            f"{self.largest:g}"
        )

    def scale(self, factor: float) -> "Distribution":
        """The distribution with all values, but for a cap, ``factor`` times as large."""
        return Distribution(
            self.kind,
            self.mean * factor,
            self.sigma,
            self.cap,
            tuple(value * factor for value in self.values),
            self.shares,
        )

    @property
    def _log_mean(self) -> float:
        return math.log(self.mean) - self.sigma**2 / 2


def read_distribution(content: Any, name: str, low: float) -> Distribution:
    """Make a distribution from what a profile holds: a number, or names with values.

    Args:
        name: the field, for errors.
        low: the smallest value that makes sense.

    Raises:
        ProfileError: something is missing, wrong, or the distribution never ends.
    """
    if isinstance(content, int | float) and not isinstance(content, bool):
        return Distribution("constant", mean=read_number(content, name, low, LARGEST_VALUE))
    if not isinstance(content, dict):
        raise ProfileError(
            f"{name}: must be a number, or names with values, as "
            "{kind: lognormal, mean: 8192, sigma: 0.8, cap: 16384}"
        )
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ProfileError(f"{name}.kind={kind!r}: must be one of {', '.join(FIELDS)}")
    for key in content.keys() - {"kind", *FIELDS[kind]}:
        raise ProfileError(
            f"{name}.{key}: a {kind} distribution has {', '.join(FIELDS[kind])} only"
        )
    for key in FIELDS[kind]:
        if key not in content:
            ending = "; without it the distribution never ends" if key == "cap" else ""
            raise ProfileError(f"{name}.{key} is missing: give it{ending}")
    if kind == "constant":
        return Distribution(
            kind, mean=read_number(content["value"], f"{name}.value", low, LARGEST_VALUE)
        )
    if kind == "lognormal":
        return _read_lognormal(content, name, low)
    values = _read_numbers(content["values"], f"{name}.values", low, LARGEST_VALUE)
    if kind == "empirical":
        return Distribution(kind, values=values)
    shares = _read_numbers(content["shares"], f"{name}.shares", 0.0, 1.0)
    if len(shares) != len(values):
        raise ProfileError(
            f"{name}.shares: {len(shares)} shares for {len(values)} values; give one each"
        )
    if len(shares) < 2 or shares[0] != 0 or shares[-1] != 1:
        raise ProfileError(
            f"{name}.shares: must begin with 0 and end with 1; else the distribution never ends"
        )
    if any(a >= b for a, b in zip(shares, shares[1:], strict=False)):
        raise ProfileError(f"{name}.shares: each must be larger than the one before")
    if any(a > b for a, b in zip(values, values[1:], strict=False)):
        raise ProfileError(f"{name}.values: none may be smaller than the one before")
    return Distribution(kind, values=values, shares=shares)


def read_number(
    content: Any, name: str, low: float, high: float, *, open_low: bool = False
) -> float:
    """Check a number that a profile holds.

    Raises:
        ProfileError: it is none, not finite, or out of its bounds.
    """
    bound = f"above {low:g}" if open_low else f"at least {low:g}"
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ProfileError(f"{name}={content!r}: must be a number {bound}")
    if not (low <= content <= high) or (open_low and content == low):
        raise ProfileError(f"{name}={content!r}: must be a number {bound}, at most {high:g}")
    return float(content)


def _read_lognormal(content: dict[str, Any], name: str, low: float) -> Distribution:
    mean = read_number(content["mean"], f"{name}.mean", 0.0, LARGEST_VALUE, open_low=True)
    sigma = read_number(content["sigma"], f"{name}.sigma", 0.0, LARGEST_SIGMA)
    if content["cap"] in (math.inf, None):
        raise ProfileError(
            f"{name}.cap={content['cap']}: the distribution never ends; give the largest value, as "
            "the limit of the response length"
        )
    cap = read_number(content["cap"], f"{name}.cap", max(low, 1e-9), LARGEST_VALUE)
    return Distribution("lognormal", mean=mean, sigma=sigma, cap=cap)


def _read_numbers(content: Any, name: str, low: float, high: float) -> tuple[float, ...]:
    if not isinstance(content, list) or not content:
        raise ProfileError(f"{name}: must be a list of numbers, as [512, 2048, 8192]")
    if len(content) > MAX_VALUES:
        raise ProfileError(f"{name}: {len(content)} values; give at most {MAX_VALUES}")
    return tuple(
        read_number(value, f"{name}[{place}]", low, high) for place, value in enumerate(content)
    )
