"""Changes of a profile's work that are given on the command line."""

import dataclasses
from dataclasses import dataclass

from verl_pipeline.planner.distributions import Distribution
from verl_pipeline.planner.profile import Profile, check_profile, replace_work
from verl_pipeline.planner.profile_error import ProfileError


@dataclass(frozen=True, kw_only=True)
class WorkChanges:
    """What is given; None keeps the profile's.

    Attributes:
        prompts, samples: of a batch, and of each prompt.
        response_mean, response_sigma, response_limit: of lognormal lengths, in tokens: the mean
            before the limit cuts them, the standard deviation of the logarithm, the limit.
        prompt_mean: tokens of every prompt.
        reward_s: seconds of every reward.
    """

    prompts: int | None = None
    samples: int | None = None
    response_mean: float | None = None
    response_sigma: float | None = None
    response_limit: float | None = None
    prompt_mean: float | None = None
    reward_s: float | None = None


def change_work(profile: Profile, changes: WorkChanges) -> Profile:
    """Apply the changes.

    Raises:
        ProfileError: the profile's lengths are not lognormal, and only some of the three are
            given; or the result cannot be simulated.
    """
    sampling, reward = profile.sampling, profile.reward
    sampling = dataclasses.replace(
        sampling,
        prompts=sampling.prompts if changes.prompts is None else changes.prompts,
        samples=sampling.samples if changes.samples is None else changes.samples,
        response_tokens=_change_lengths(sampling.response_tokens, changes),
    )
    if changes.prompt_mean is not None:
        prompts = Distribution("constant", mean=changes.prompt_mean)
        sampling = dataclasses.replace(sampling, prompt_tokens=prompts)
    if changes.reward_s is not None:
        seconds = Distribution("constant", mean=changes.reward_s)
        reward = dataclasses.replace(reward, seconds=seconds)
    profile = dataclasses.replace(replace_work(profile, sampling), reward=reward)
    check_profile(profile)
    return profile


def _change_lengths(lengths: Distribution, changes: WorkChanges) -> Distribution:
    given = {
        "mean": changes.response_mean,
        "sigma": changes.response_sigma,
        "cap": changes.response_limit,
    }
    known = {name: value for name, value in given.items() if value is not None}
    if not known:
        return lengths
    if lengths.kind != "lognormal" and len(known) < len(given):
        raise ProfileError(
            f"the profile's lengths are {lengths.kind}, so one number cannot change them; give "
            "--response-mean, --response-sigma and --response-limit together"
        )
    kept = lengths if lengths.kind == "lognormal" else Distribution("lognormal")
    return dataclasses.replace(kept, **known)  # type: ignore[arg-type]
