"""How the gain of a plan changes with the work: lengths, samples, batch, reward time; and with the
speed of training, which is the least certain number of most profiles.
"""

import dataclasses
from dataclasses import dataclass

from verl_pipeline.planner.plan import Plan, Planner
from verl_pipeline.planner.profile import Profile, check_profile, replace_work
from verl_pipeline.planner.profile_error import ProfileError


@dataclass(frozen=True)
class Change:
    """One change of the work, and the gain that the same plan has after it."""

    name: str
    gain: float


def list_changes(profile: Profile) -> list[tuple[str, Profile]]:
    """Profiles that differ from this one in one respect; what contradicts itself is left out."""
    sampling, reward = profile.sampling, profile.reward

    def change(**fields: object) -> Profile:
        changed = dataclasses.replace(sampling, **fields)  # type: ignore[arg-type]
        return replace_work(profile, changed)

    lengths = sampling.response_tokens
    found = [
        ("half the response length", change(response_tokens=lengths.scale(0.5))),
        ("twice the response length", change(response_tokens=lengths.scale(2.0))),
        ("half the prompts", change(prompts=max(1, sampling.prompts // 2))),
        ("twice the prompts", change(prompts=sampling.prompts * 2)),
        ("twice the samples", change(samples=sampling.samples * 2)),
    ]
    if reward.seconds.largest > 0:
        slower = dataclasses.replace(reward, seconds=reward.seconds.scale(4.0))
        found.append(("rewards four times as slow", dataclasses.replace(profile, reward=slower)))
    found += [
        ("training half as fast", _speed_up(profile, 0.5)),
        ("training twice as fast", _speed_up(profile, 2.0)),
    ]
    return [(name, changed) for name, changed in found if _is_possible(changed)]


def _speed_up(profile: Profile, factor: float) -> Profile:
    training = profile.training
    faster = dataclasses.replace(
        training,
        update_s=training.update_s / factor,
        log_prob_s=training.log_prob_s / factor,
        utilisation=training.utilisation * factor,
    )
    return dataclasses.replace(profile, training=faster)


def measure_sensitivity(profile: Profile, plan: Plan) -> list[Change]:
    """The gain of ``plan`` after each change of the work, on one seed."""
    assert plan.split is not None
    changes = []
    for name, changed in list_changes(profile):
        planner = Planner(changed, seeds=1)
        changes.append(Change(name, planner.measure(plan.schedule, plan.layout, plan.split).gain))
    return changes


def _is_possible(profile: Profile) -> bool:
    try:
        check_profile(profile)
    except ProfileError:
        return False
    return True
